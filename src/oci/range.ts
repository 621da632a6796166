import { OciError } from './error.ts';

/** Bytes `start` to `end`, both included, as in RFC 9110 §14. `end` absent: to the end of the
 *  blob. */
export interface ByteRange {
  start: number;
  end?: number;
}
/** A range as clients request it: a ByteRange, or the last `suffix` bytes. */
export type RangeRequest = ByteRange | { suffix: number };

const SINGLE = /^bytes=(\d*)-(\d*)$/i;

/** Reads a Range header of one range. Undefined for several ranges, another unit or a malformed
 *  header: it is then ignored and the whole blob is served (RFC 9110 §14.2). */
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

/** Limits positions of any number of digits to a safe integer, which is far beyond the end of every
 *  blob. */
function toPosition(digits: string): number {
  return Math.min(Number(digits), 1e15);
}

/** The bytes of a blob that a range selects; if there are none, the start is after the end. */
function within(range: RangeRequest, size: number): Required<ByteRange> {
  if ('suffix' in range) return { start: Math.max(0, size - range.suffix), end: size - 1 };
  return { start: range.start, end: Math.min(range.end ?? size - 1, size - 1) };
}

/** A range of a blob whose size is known: both ends inside it.
 *  @throws OciError RANGE_INVALID (with the size): no byte of the blob is within it */
export function resolveRange(range: RangeRequest, size: number): Required<ByteRange> {
  const { start, end } = within(range, size);
  if (start > end) throw new OciError('RANGE_INVALID', `the range lies outside the blob of ${size} bytes`, { size });
  return { start, end };
}

/** With more ranges than this in one header, the whole blob is sent. */
const MAX_RANGES = 64;
/** Ranges with at most this many bytes between them are sent as one, because the header of a part
 *  is longer. */
const PART_HEAD_BYTES = 128;

/** Reads a Range header of one or several ranges. Undefined for more than MAX_RANGES, another unit
 *  or a malformed header: the whole blob is then served. */
export function parseRanges(header: string | undefined): RangeRequest[] | undefined {
  const list = /^bytes=(.*)$/i.exec(header?.trim() ?? '')?.[1]?.split(',');
  const parts = list?.map((part) => part.trim()).filter((part) => part !== ''); // RFC 9110 §5.6.1: elements may be empty
  if (parts === undefined || parts.length === 0 || parts.length > MAX_RANGES) return undefined;
  const ranges = parts.map((part) => parseRange(`bytes=${part}`));
  return ranges.every((range) => range !== undefined) ? ranges : undefined;
}

/** The ranges of a blob whose size is known, without those that lie outside. They keep their order
 *  unless some overlap or lie next to each other: then they are sorted, and those are joined (RFC
 *  9110 §15.3.7.2).
 *  @throws OciError RANGE_INVALID (with the size): no byte of the blob is within any of them */
export function resolveRanges(ranges: readonly RangeRequest[], size: number): Required<ByteRange>[] {
  const inside = ranges.flatMap((range) => {
    const { start, end } = within(range, size);
    return start > end ? [] : [{ start, end }];
  });
  if (inside.length === 0) throw new OciError('RANGE_INVALID', `all ranges lie outside the blob of ${size} bytes`, { size });
  const joined: Required<ByteRange>[] = [];
  for (const { start, end } of inside.toSorted((one, other) => one.start - other.start)) {
    const before = joined.at(-1);
    if (before !== undefined && start <= before.end + 1 + PART_HEAD_BYTES) before.end = Math.max(before.end, end);
    else joined.push({ start, end });
  }
  return joined.length === inside.length ? inside : joined;
}

const CONTENT_RANGE = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)$/i;

/** Reads a Content-Range header; undefined if it is malformed. `size` is absent for `/*`. */
export function parseContentRange(header: string | undefined): { start: number; end: number; size?: number } | undefined {
  const match = header === undefined ? null : CONTENT_RANGE.exec(header);
  if (match === null) return undefined;
  const [, start, end, size] = match;
  return { start: Number(start), end: Number(end), ...(size === '*' ? {} : { size: Number(size) }) };
}

export function formatRange(range: RangeRequest): string {
  return 'suffix' in range ? `bytes=-${range.suffix}` : `bytes=${range.start}-${range.end ?? ''}`;
}
