import { acquireShared, spoolBuffers, type SharedBuffer } from '../../io/buffers.ts';

/** Windows that are kept for readers beside the one that is being filled. */
const KEPT = 2;

/** A stretch of a blob in memory: [start, end) has come, [start, written) is in the spool too. */
export interface Window {
  start: number;
  end: number;
  written: number;
  buffer: SharedBuffer;
}

/** The stretches that came last: readers at the front take them from here, all of them the same bytes, instead of reading back
 *  what was just written. */
export interface Windows {
  /** A new one; who asked holds it until it releases its buffer. */
  open(start: number): Window;
  /** The one that has the byte at `position`, already in the spool. */
  find(position: number): Window | undefined;
  clear(): void;
}

export function createWindows(): Windows {
  const kept: Window[] = [];
  return {
    open(start) {
      const window: Window = { start, end: start, written: start, buffer: acquireShared(spoolBuffers) };
      window.buffer.hold();
      kept.push(window);
      if (kept.length > KEPT + 1) kept.shift()?.buffer.release();
      return window;
    },
    find: (position) => kept.find(({ start, written }) => start <= position && position < written),
    clear() {
      for (const { buffer } of kept.splice(0)) buffer.release();
    },
  };
}
