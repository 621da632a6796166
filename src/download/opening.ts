import type { Pace } from './helpers.ts';
import { createSegment, type Segment } from './segments.ts';
import { partsAt, worthwhile } from './speed.ts';
import type { DownloadState } from './state.ts';

/** The properties of a download before its source has answered. */
export interface Opening {
  /** Where the first request begins. */
  start: number;
  /** The size of the blob in bytes, if a manifest states it. */
  expectedSize: number | undefined;
  /** The maximum number of parallel connections. */
  max: number;
  /** The speed of one connection, if several connections are known to be faster. */
  pace: Pace | undefined;
}

/** The first segment: the first range that an earlier download has not left, else the whole blob.
 *  If several connections are known to be faster, each requests only its own range. */
export function firstSegment({ have, size }: Pick<DownloadState, 'have' | 'size'>, { start, expectedSize, max, pace }: Opening): Segment {
  const [gap] = size === undefined ? [] : [...have.gaps(start, size), ...have.gaps(0, size)];
  if (gap !== undefined) return createSegment(...gap);
  if (pace === undefined) return createSegment(start, Infinity);
  if (expectedSize === undefined) return createSegment(start, start + worthwhile(pace));
  const left = expectedSize - start;
  const parts = partsAt(pace, { left, max });
  return createSegment(start, parts === 1 ? Infinity : start + Math.ceil(left / parts));
}

/** The segments after the first one, for additional connections that start once the size is
 *  known. */
export function furtherSegments(first: Segment, size: number, { expectedSize, max, pace }: Opening): Segment[] {
  if (pace === undefined || first.end === Infinity) return [];
  const left = size - first.end;
  const part = Math.ceil(left / partsAt(pace, { left, max: expectedSize === undefined ? max : max - 1 }));
  const segments: Segment[] = [];
  for (let from = first.end; from < size; from += part) segments.push(createSegment(from, Math.min(from + part, size)));
  return segments;
}
