import { sharedBufferOf, spoolBuffers, type SharedBuffer } from '../../io/buffers.ts';
import { bytesOf, type RecentChunk, type RecentChunks } from './recent-chunks.ts';

/** Bytes that are written without waiting for more. */
const ENOUGH_BYTES = 256 * 1024;
/** A piece of this many bytes that lies in shared memory is written from there, without copying
 *  it. */
const ADOPTED_BYTES = 64 * 1024;
/** How long fewer bytes wait for more, in ms. */
const GATHER_MS = 1;
/** How many writes one connection has in flight. On a busy machine, each response of the writing
 *  thread may take as long as several writes: with one write at a time, the two threads would wait
 *  for each other. */
const MAX_WRITES = 4;

/** Writes the bytes of one connection to the spool. While the disk is busy, the pieces that the
 *  network delivers are combined into larger writes; while it is idle, they are written at once. */
export interface CoalescingWriter {
  /** The position of the next byte to be taken. */
  position(): number;
  /** Copies a piece, or holds its buffer; waits while too many buffers are not yet written. */
  take(piece: Uint8Array): Promise<void>;
  /** Waits until all bytes taken are written, or no more are wanted. */
  end(): Promise<void>;
}

/** The destination of one connection's bytes. */
export interface Sink {
  /** Writes bytes, a part of `buffer`. Calls may overlap; they take effect, and resolve, in their
   *  order.
   *  @returns how many were written: fewer when no more are wanted. Never rejects */
  write(bytes: Uint8Array, buffer: SharedBuffer): Promise<number>;
  /** Called when the last written bytes are available in the recent chunks. */
  written(): void;
}

interface OpenChunk {
  chunk: RecentChunk;
  /** All bytes before this position are written or being written. */
  sent: number;
}

export function createCoalescingWriter(start: number, chunks: RecentChunks, sink: Sink): CoalescingWriter {
  /** Oldest first; the last one is being filled. */
  const open: OpenChunk[] = [];
  let position = start;
  let unwanted = false;
  let ended = false;
  let underWay = 0;
  let gathering: NodeJS.Timeout | undefined;
  let wake = Promise.withResolvers<void>();

  /** How many writes may be in flight, and how many other chunks may be open: fewer when buffers
   *  are scarce. */
  const depth = (): number => (2 * spoolBuffers.used > spoolBuffers.count ? 1 : MAX_WRITES);

  /** Starts the writes that are due. Fewer bytes wait for more, unless the disk is idle or they
   *  have waited already. */
  function pump(isDue = ended): void {
    for (const item of open) {
      if (unwanted || underWay >= depth()) return;
      const { chunk, sent } = item;
      if (sent === chunk.end) continue;
      if (chunk.end - sent >= ENOUGH_BYTES || isFull(chunk) || isDue) void write(item);
      else gathering ??= setTimeout(gathered, GATHER_MS);
    }
  }

  function gathered(): void {
    gathering = undefined;
    pump(true);
  }

  async function write(item: OpenChunk): Promise<void> {
    const { chunk, sent } = item;
    const { end } = chunk;
    underWay++;
    item.sent = end;
    const count = await sink.write(bytesOf(chunk, sent, end), chunk.buffer);
    underWay--;
    chunk.written += count;
    unwanted ||= count < end - sent;
    for (let [first] = open; first !== undefined && isFull(first.chunk) && first.chunk.written === first.chunk.end; [first] = open) {
      open.shift();
      first.chunk.buffer.release();
    }
    sink.written();
    pump();
    wake.resolve();
    wake = Promise.withResolvers();
  }

  /** Waits until another buffer may be filled. */
  async function turn(): Promise<void> {
    while (open.length > depth() && underWay > 0) await wake.promise;
  }

  /** The chunk that the next bytes are copied into. */
  async function room(): Promise<RecentChunk> {
    const last = open.at(-1)?.chunk;
    if (last !== undefined && !isFull(last)) return last;
    await turn();
    const chunk = chunks.open(position);
    open.push({ chunk, sent: position });
    return chunk;
  }

  async function adopt(piece: Uint8Array, buffer: SharedBuffer): Promise<void> {
    await turn();
    const last = open.at(-1)?.chunk;
    if (last !== undefined) last.limit = last.end;
    open.push({ chunk: chunks.adopt(position, piece, buffer), sent: position });
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
    pump(underWay === 0 && gathering === undefined);
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
      pump();
      while (underWay > 0) await wake.promise;
      clearTimeout(gathering);
      for (const { chunk } of open.splice(0)) chunk.buffer.release();
    },
  };
}

function isFull({ end, limit }: RecentChunk): boolean {
  return end === limit;
}
