import { createIntervals, type Intervals } from './spool/byte-ranges.ts';

/** How close behind a reader's position a connection must be for the reader to wait for it, in bytes. */
export const NEAR = 2 * 1024 * 1024;

/** A connection and what it is to bring: [position, end). */
export interface Worker {
  position: number;
  end: number;
  /** The end of what is being written: nobody else may bring bytes before it, since what is hashed must be what is kept. */
  reach: number;
}

/** What of a blob a connection that is free should bring. */
export interface Parts {
  /** The part that starts at `position`, taken from the connection that would come to it too late; undefined: it is coming, or here. */
  at(position: number, size: number): Worker | undefined;
  /** The largest that nobody has brought or is bringing. */
  largest(size: number): Worker | undefined;
}

/** Over what is here already, and those who bring more. */
export function createParts(have: Intervals, workers: ReadonlySet<Worker>): Parts {
  return {
    at(position, size) {
      const [gap] = have.gaps(position, size);
      if (gap === undefined) return undefined;
      const [start] = gap;
      let end = gap[1];
      for (const worker of workers) {
        if (worker.position >= worker.end) continue;
        if (worker.position <= start && worker.end > start) {
          if (start - worker.position < NEAR) return undefined;
          end = Math.min(end, worker.end);
          worker.end = start;
        } else if (worker.position > start) {
          end = Math.min(end, worker.position);
        }
      }
      return { position: start, reach: start, end };
    },

    largest(size) {
      const claimed = createIntervals();
      for (const worker of workers) claimed.add(worker.position, worker.end);
      const gaps = have.gaps(0, size).flatMap(([start, end]) => claimed.gaps(start, end));
      const [gap] = gaps.sort(([a, b], [c, d]) => d - c - (b - a));
      return gap === undefined ? undefined : { position: gap[0], reach: gap[0], end: gap[1] };
    },
  };
}
