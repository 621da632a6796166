import { acquireShared, spoolBuffers, type SharedBuffer } from '../../io/buffers.ts';

/** How many chunks are kept for readers in addition to the one that is being filled. */
const KEPT_CHUNKS = 2;

/** A part of a blob in memory: [start, end) has arrived, [start, written) is in the spool too. */
export interface RecentChunk {
  start: number;
  end: number;
  written: number;
  buffer: SharedBuffer;
}

/** The chunks that arrived last. Readers that keep up share them instead of reading back bytes that
 *  were just written. */
export interface RecentChunks {
  /** A new chunk; the caller holds its buffer until it releases it. */
  open(start: number): RecentChunk;
  /** The chunk that has the byte at `position`, already in the spool. */
  find(position: number): RecentChunk | undefined;
  clear(): void;
}

export function createRecentChunks(): RecentChunks {
  const kept: RecentChunk[] = [];
  return {
    open(start) {
      const chunk: RecentChunk = { start, end: start, written: start, buffer: acquireShared(spoolBuffers) };
      chunk.buffer.hold();
      kept.push(chunk);
      if (kept.length > KEPT_CHUNKS + 1) kept.shift()?.buffer.release();
      return chunk;
    },
    find: (position) => kept.find(({ start, written }) => start <= position && position < written),
    clear() {
      for (const { buffer } of kept.splice(0)) buffer.release();
    },
  };
}
