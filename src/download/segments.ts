import { createByteRanges, type ByteRanges } from './spool/byte-ranges.ts';

/** How close behind a reader's position a connection must be for the reader to wait for it, in
 *  bytes. */
const NEAR_BYTES = 2 * 1024 * 1024;

/** The bytes that one connection is to download: [position, end). */
export interface Segment {
  position: number;
  end: number;
  /** The end of the bytes that are being written now. No other connection may download bytes before
   *  it: the bytes that are hashed must be the bytes that are stored. */
  reach: number;
}

/** Assigns the bytes of a blob to connections. No byte is assigned to two connections, and every
 *  byte that has not arrived is assigned to one or is returned by `largest`. */
export interface Segments {
  /** The segments that connections are working on. */
  readonly active: ReadonlySet<Segment>;
  start(segment: Segment): void;
  /** A connection has stopped: the rest of its segment goes to the connection that ends right
   *  before it, if there is one. */
  stop(segment: Segment): void;
  /** Cuts the segments at the size of the blob, once it is known. */
  limit(size: number | undefined): void;
  /** Takes the part that starts at `position` from the connection that would reach it too late.
   *  Undefined: the byte has arrived, or will soon. */
  at(position: number, size: number): Segment | undefined;
  /** The largest part that has not arrived and is assigned to no connection. */
  largest(size: number): Segment | undefined;
  /** Splits the segment that has the most bytes left, and returns its second half. Undefined: that
   *  half would have less than `worth` bytes. */
  half(worth: number): Segment | undefined;
  /** Whether a connection will bring the byte at `position` soon. */
  isNear(this: void, position: number): boolean;
}

export function createSegment(position: number, end: number): Segment {
  return { position, reach: position, end };
}

/** `have`: the bytes that have arrived. */
export function createSegments(have: ByteRanges): Segments {
  const active = new Set<Segment>();

  function isNear({ position: at }: Segment, position: number): boolean {
    return at <= position && position - at < NEAR_BYTES;
  }

  return {
    active,
    start: (segment) => void active.add(segment),

    stop(segment) {
      active.delete(segment);
      if (segment.position >= segment.end) return;
      for (const other of active) if (other.end === segment.position) other.end = segment.end;
    },

    limit(size) {
      for (const segment of active) segment.end = Math.min(segment.end, size ?? Infinity);
    },

    at(position, size) {
      const [gap] = have.gaps(position, size);
      if (gap === undefined) return undefined;
      const [start] = gap;
      let end = gap[1];
      for (const segment of active) {
        if (segment.position >= segment.end) continue;
        if (segment.position <= start && segment.end > start) {
          if (isNear(segment, start) || segment.reach > start) return undefined;
          end = Math.min(end, segment.end);
          segment.end = start;
        } else if (segment.position > start) {
          end = Math.min(end, segment.position);
        }
      }
      return createSegment(start, end);
    },

    largest(size) {
      const claimed = createByteRanges();
      for (const segment of active) claimed.add(segment.position, segment.end);
      const gaps = have.gaps(0, size).flatMap(([start, end]) => claimed.gaps(start, end));
      const [gap] = gaps.sort(([a, b], [c, d]) => d - c - (b - a));
      return gap === undefined ? undefined : createSegment(...gap);
    },

    half(worth) {
      const [first, ...others] = active;
      if (first === undefined) return undefined;
      const left = ({ position, end }: Segment): number => end - position;
      const largest = others.reduce((most, segment) => (left(segment) > left(most) ? segment : most), first);
      const middle = Math.max(largest.reach, Math.floor((largest.position + largest.end) / 2));
      if (largest.end === Infinity || largest.end - middle < worth) return undefined;
      const half = createSegment(middle, largest.end);
      largest.end = middle;
      return half;
    },

    isNear: (position) => [...active].some((segment) => isNear(segment, position)),
  };
}
