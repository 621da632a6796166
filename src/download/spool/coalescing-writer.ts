import type { SharedBuffer } from '../../io/buffers.ts';
import type { RecentChunk, RecentChunks } from './recent-chunks.ts';

/** Bytes that are written without waiting for more. */
const ENOUGH_BYTES = 256 * 1024;
/** How long fewer bytes wait for more, in ms. */
const GATHER_MS = 1;

/** Writes the bytes of one connection to the spool. While the disk is busy, the pieces that the
 *  network delivers are combined into larger writes; while it is idle, they are written at once. */
export interface CoalescingWriter {
  /** The position of the next byte to be taken. */
  position(): number;
  /** Copies a chunk; waits while two buffers are full and not written. */
  take(chunk: Uint8Array): Promise<void>;
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
        const count = await sink.write(buffer.bytes.subarray(written - chunk.start, end - chunk.start), buffer);
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

  async function room(): Promise<RecentChunk> {
    let chunk = open.at(-1);
    if (chunk !== undefined && !isFull(chunk)) return chunk;
    while (open.length > 1 && writing !== undefined) await Promise.race([wake.promise, writing]);
    chunk = chunks.open(position);
    open.push(chunk);
    return chunk;
  }

  return {
    position: () => position,
    async take(piece) {
      for (let done = 0; done < piece.length && !unwanted;) {
        const chunk = await room();
        const { bytes } = chunk.buffer;
        const count = Math.min(bytes.length - (chunk.end - chunk.start), piece.length - done);
        Buffer.from(piece.buffer, piece.byteOffset + done, count).copy(bytes, chunk.end - chunk.start); // `set` is slow on shared memory
        chunk.end += count;
        position += count;
        done += count;
        taken?.();
        writing ??= drain().finally(() => (writing = undefined));
      }
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

function isFull({ start, end, buffer }: RecentChunk): boolean {
  return end - start === buffer.bytes.length;
}
