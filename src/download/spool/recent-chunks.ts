import { acquireShared, spoolBuffers, type SharedBuffer } from '../../io/buffers.ts';

/** How many chunks that have been written are kept for readers. */
const KEPT_CHUNKS = 2;
/** How many chunks are kept in any case, when their writes fail for example. */
const MAX_CHUNKS = 8;

/** A part of a blob in memory: [start, end) has arrived, [start, written) is in the spool too. */
export interface RecentChunk {
  start: number;
  end: number;
  written: number;
  /** The chunk takes no bytes from here on. */
  limit: number;
  buffer: SharedBuffer;
  /** The position in the buffer of the byte at `start`. */
  offset: number;
}

/** The bytes of a chunk from position `from` to position `to`. */
export function bytesOf({ buffer, offset, start }: RecentChunk, from: number, to: number): Buffer {
  return buffer.bytes.subarray(offset + from - start, offset + to - start);
}

/** The chunks that arrived last. Readers that keep up share them instead of reading back bytes that
 *  were just written. */
export interface RecentChunks {
  /** A new chunk; the caller holds its buffer until it releases it. */
  open(start: number): RecentChunk;
  /** A chunk of bytes that lie in `buffer`, which the caller holds from now on until it releases
   *  it. */
  adopt(start: number, bytes: Uint8Array, buffer: SharedBuffer): RecentChunk;
  /** The chunk that has the byte at `position`, already in the spool. */
  find(position: number): RecentChunk | undefined;
  clear(): void;
}

function isWritten({ written, limit }: RecentChunk): boolean {
  return written === limit;
}

export function createRecentChunks(): RecentChunks {
  const kept: RecentChunk[] = [];

  function keep(chunk: RecentChunk): RecentChunk {
    chunk.buffer.hold();
    kept.push(chunk);
    while (kept.length > MAX_CHUNKS || kept.filter(isWritten).length > KEPT_CHUNKS) kept.shift()?.buffer.release();
    return chunk;
  }

  return {
    open(start) {
      const buffer = acquireShared(spoolBuffers);
      return keep({ start, end: start, written: start, limit: start + buffer.bytes.length, buffer, offset: 0 });
    },
    adopt(start, bytes, buffer) {
      buffer.hold();
      const end = start + bytes.length;
      return keep({ start, end, written: start, limit: end, buffer, offset: bytes.byteOffset - buffer.bytes.byteOffset });
    },
    find: (position) => kept.find(({ start, written }) => start <= position && position < written),
    clear() {
      for (const { buffer } of kept.splice(0)) buffer.release();
    },
  };
}
