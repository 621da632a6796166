import { fstatSync } from 'node:fs';
import { LRUCache } from 'lru-cache';
import type { FileSlice } from '../io/slice.ts';
import { MAX_CHECK, type FileSender } from './send-file.ts';

/** Bytes that the first check of a file covers. */
const FIRST_CHECK = 2 ** 20;
/** How long the result of a check counts: pages may be evicted. */
const VALID_MS = 100;

/** Bytes of a file that were in memory. */
interface Checked {
  start: number;
  end: number;
  /** On the process's clock, in ms. */
  at: number;
}

/** What was checked last of each file, by device and inode: several clients that read the same blob
 *  at about the same time share its checks, which look at every page. */
const checked = new LRUCache<string, Checked>({ max: 256 });

/** Knows which bytes of a file are in memory. */
export interface Presence {
  /** How many bytes from the beginning of a slice are in memory, as far as checked. */
  ready(this: void, slice: FileSlice): number;
}

export function createPresence(sender: FileSender): Presence {
  let file: FileSlice['file'] | undefined;
  let key = '';
  let window = FIRST_CHECK;

  function check(slice: FileSlice): number {
    const count = sender.ready(slice, Math.min(window, slice.length));
    if (count > 0) {
      window = Math.min(MAX_CHECK, 2 * window);
      checked.set(key, { start: slice.position, end: slice.position + count, at: performance.now() });
      return count;
    }
    if (window === FIRST_CHECK) return 0;
    window = FIRST_CHECK;
    return check(slice);
  }

  return {
    ready(slice) {
      const { position, length } = slice;
      if (slice.file !== file) key = keyOf((file = slice.file));
      const last = checked.get(key);
      const isKnown = last !== undefined && last.start <= position && position < last.end && performance.now() - last.at < VALID_MS;
      return isKnown ? Math.min(length, last.end - position) : check(slice);
    },
  };
}

function keyOf({ fd }: FileSlice['file']): string {
  const { dev, ino } = fstatSync(fd);
  return `${dev} ${ino}`;
}
