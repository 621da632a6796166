import { sharedBufferOf, type SharedBuffer } from '../../io/buffers.ts';
import { bytesOf, type RecentChunk, type RecentChunks } from './recent-chunks.ts';

/** Bytes that are written without waiting for more. */
const ENOUGH_BYTES = 256 * 1024;
/** A piece of this many bytes that lies in shared memory is written from there, without copying it. */
const ADOPTED_BYTES = 64 * 1024;
/** How long fewer bytes wait for more, in ms. */
const GATHER_MS = 1;

/** Writes the bytes of one connection to the spool. While the disk is busy, the pieces that the
 *  network delivers are combined into larger writes; while it is idle, they are written at once. */
export interface CoalescingWriter {
  /** The position of the next byte to be taken. */
  position(): number;
  /** Copies a piece, or holds the buffer that it lies in; waits while two buffers are full and not written. */
  take(piece: Uint8Array): Promise<void>;
  /** Waits until all bytes taken are written, or no more are wanted. */
  end(): Promise<void>;
}

/** Where the bytes of one connection go. */
export interface Sink {
  /** Writes bytes, a part of `buffer`. @returns how many were written: fewer when no more are wanted */
  write(bytes: Uint8Array, buffer: SharedBuffer): Promise<number>;
  /** Called when the bytes written last can be found among the recent chunks. */
  written(): void;
}

export function createCoalescingWriter(start: number, chunks: RecentChunks, sink: Sink): CoalescingWriter {
  /** Oldest first; the last one is being filled. */
  const open: RecentChunk[] = [];
  let position = start;
  let unwanted = false;
  let writing: Promise<void> | undefined;
  let wake = Promise.withResolvers<void>();
  let taken: (() => void) | undefined;
  let ended = false;

  async function drain(): Promise<void> {
    let first = true;
    for (let chunk = open[0]; chunk !== undefined && !unwanted; chunk = open[0]) {
      const { buffer, written } = chunk;
      if (written < chunk.end) {
        if (!first && !isEnough(chunk)) await gather(chunk);
        const { end } = chunk;
        const count = await sink.write(bytesOf(chunk, written, end), buffer);
        chunk.written += count;
        unwanted = chunk.written < end;
        sink.written();
      } else if (isFull(chunk)) {
        open.shift();
        buffer.release();
        wake.resolve();
        wake = Promise.withResolvers();
      } else {
        return;
      }
      first = false;
    }
  }

  /** Waits until there is enough to write, or nothing more has arrived for a while. */
  async function gather(chunk: RecentChunk): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, GATHER_MS);
    taken = () => (ended || isEnough(chunk)) && resolve();
    await promise;
    clearTimeout(timer);
    taken = undefined;
  }

  /** Waits until another buffer may be filled. */
  async function turn(): Promise<void> {
    while (open.length > 1 && writing !== undefined) await Promise.race([wake.promise, writing]);
  }

  /** The chunk that the next bytes are copied into. */
  async function room(): Promise<RecentChunk> {
    const last = open.at(-1);
    if (last !== undefined && !isFull(last)) return last;
    await turn();
    const chunk = chunks.open(position);
    open.push(chunk);
    return chunk;
  }

  async function adopt(piece: Uint8Array, buffer: SharedBuffer): Promise<void> {
    await turn();
    const last = open.at(-1);
    if (last !== undefined) last.limit = last.end;
    open.push(chunks.adopt(position, piece, buffer));
    advance(piece.length);
  }

  async function copy(piece: Uint8Array): Promise<void> {
    for (let done = 0; done < piece.length && !unwanted;) {
      const chunk = await room();
      const count = Math.min(chunk.limit - chunk.end, piece.length - done);
      const source = Buffer.from(piece.buffer, piece.byteOffset + done, count); // `set` is slow on shared memory
      source.copy(chunk.buffer.bytes, chunk.offset + chunk.end - chunk.start);
      chunk.end += count;
      done += count;
      advance(count);
    }
  }

  function advance(count: number): void {
    position += count;
    taken?.();
    writing ??= drain().finally(() => (writing = undefined));
  }

  return {
    position: () => position,
    async take(piece) {
      const buffer = piece.length < ADOPTED_BYTES ? undefined : sharedBufferOf(piece);
      if (buffer === undefined) await copy(piece);
      else if (!unwanted) await adopt(piece, buffer);
    },
    async end() {
      ended = true;
      taken?.();
      while (writing !== undefined) await writing;
      for (const { buffer } of open.splice(0)) buffer.release();
    },
  };
}

function isEnough(chunk: RecentChunk): boolean {
  return chunk.end - chunk.written >= ENOUGH_BYTES || isFull(chunk);
}

function isFull({ end, limit }: RecentChunk): boolean {
  return end === limit;
}
