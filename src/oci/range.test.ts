import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRange, parseRanges, resolveRange, resolveRanges } from './range.ts';

const MANY = '9'.repeat(40);

test('ranges may have any number of digits; a range that starts beyond the end is refused, and one that ends there is cut', () => {
  assert.deepEqual(resolveRange(parseRange(`bytes=5-${MANY}`) ?? assert.fail(), 10), { start: 5, end: 9 });
  assert.deepEqual(resolveRange(parseRange(`bytes=-${MANY}`) ?? assert.fail(), 10), { start: 0, end: 9 });
  const behind = parseRange(`bytes=${MANY}-`) ?? assert.fail();
  assert.throws(() => resolveRange(behind, 10), { code: 'RANGE_INVALID', size: 10 });
});

test('several ranges, an end before its start, another unit and nonsense ask for the whole', () => {
  for (const header of ['bytes=0-0,5-9', 'bytes=5-3', 'bytes=-', 'items=0-1', 'bytes=a-b', 'bytes 0-1', ''])
    assert.equal(parseRange(header), undefined, header);
});

test('several ranges are read one by one; too many of them, or nonsense among them, ask for the whole', () => {
  assert.deepEqual(parseRanges('bytes=0-0, 5-9,,-3, 7-'), [{ start: 0, end: 0 }, { start: 5, end: 9 }, { suffix: 3 }, { start: 7 }]);
  assert.deepEqual(parseRanges('bytes=5-9'), [{ start: 5, end: 9 }]);
  const many = (count: number) => `bytes=${Array.from({ length: count }, (_, index) => `${index * 1000}-${index * 1000}`).join(',')}`;
  assert.equal(parseRanges(many(64))?.length, 64);
  for (const header of [many(65), 'bytes=0-1,x', 'bytes=0-1,5-3', 'bytes=', 'bytes=,', 'items=0-1,2-3', undefined])
    assert.equal(parseRanges(header), undefined, String(header));
});

test('ranges outside the blob are left out, those that touch are joined, and others keep their order', () => {
  const resolve = (header: string, size: number) => resolveRanges(parseRanges(header) ?? assert.fail(), size);
  assert.deepEqual(resolve('bytes=5000-5001,0-1,9000-', 9000), [
    { start: 5000, end: 5001 },
    { start: 0, end: 1 },
  ]);
  assert.deepEqual(resolve('bytes=5000-5001,0-10,5-20,30-40', 9000), [
    { start: 0, end: 40 },
    { start: 5000, end: 5001 },
  ]);
  assert.deepEqual(resolve('bytes=-4,0-0', 2), [{ start: 0, end: 1 }]);
  assert.throws(() => resolve('bytes=10-,20-30', 10), { code: 'RANGE_INVALID', size: 10 });
});
