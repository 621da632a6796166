import { OciError } from './error.ts';

/** Bytes `start` to `end`, both included, as in RFC 9110 §14. `end` absent: to the end of the blob. */
export interface ByteRange {
  start: number;
  end?: number;
}
/** What a client may ask for: a ByteRange, or the last `suffix` bytes. */
export type RangeRequest = ByteRange | { suffix: number };

const SINGLE = /^bytes=(\d*)-(\d*)$/i;

/** Reads a Range header. Several ranges, another unit or nonsense give undefined: such a header is ignored and the whole is
 *  served (RFC 9110 §14.2). */
export function parseRange(header: string | undefined): RangeRequest | undefined {
  const match = header === undefined ? null : SINGLE.exec(header.trim());
  if (match === null) return undefined;
  const [, first = '', last = ''] = match;
  if (first === '') return last === '' ? undefined : { suffix: toPosition(last) };
  const start = toPosition(first);
  if (last === '') return { start };
  const end = toPosition(last);
  return end < start ? undefined : { start, end };
}

/** However many digits it has, it is a number that can be computed with, and far behind the end of every blob. */
function toPosition(digits: string): number {
  return Math.min(Number(digits), 1e15);
}

/** A range of a blob whose size is known: both ends inside it.
 *  @throws OciError RANGE_INVALID (with the size): nothing of the blob lies within it */
export function resolveRange(range: RangeRequest, size: number): Required<ByteRange> {
  const start = 'suffix' in range ? Math.max(0, size - range.suffix) : range.start;
  const end = 'suffix' in range ? size - 1 : Math.min(range.end ?? size - 1, size - 1);
  if (start > end) throw new OciError('RANGE_INVALID', `the range lies outside the blob of ${size} bytes`, { size });
  return { start, end };
}

const CONTENT_RANGE = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i;

/** Reads a Content-Range header; undefined when it is none. `size` is absent for `/*`. */
export function parseContentRange(header: string | undefined): { start: number; end: number; size?: number } | undefined {
  const match = header === undefined ? null : CONTENT_RANGE.exec(header);
  if (match === null) return undefined;
  const [, start, end, size] = match;
  return { start: Number(start), end: Number(end), ...(size === '*' ? {} : { size: Number(size) }) };
}

export function formatRange(range: RangeRequest): string {
  return 'suffix' in range ? `bytes=-${range.suffix}` : `bytes=${range.start}-${range.end ?? ''}`;
}
