import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRange, resolveRange } from './range.ts';

const MANY = '9'.repeat(40);

test('a range of any number of digits is a range: one that starts behind the end is refused, one that ends there is cut', () => {
  assert.deepEqual(resolveRange(parseRange(`bytes=5-${MANY}`) ?? assert.fail(), 10), { start: 5, end: 9 });
  assert.deepEqual(resolveRange(parseRange(`bytes=-${MANY}`) ?? assert.fail(), 10), { start: 0, end: 9 });
  const behind = parseRange(`bytes=${MANY}-`) ?? assert.fail();
  assert.throws(() => resolveRange(behind, 10), { code: 'RANGE_INVALID', size: 10 });
});

test('several ranges, an end before its start, another unit and nonsense ask for the whole', () => {
  for (const header of ['bytes=0-0,5-9', 'bytes=5-3', 'bytes=-', 'items=0-1', 'bytes=a-b', 'bytes 0-1', ''])
    assert.equal(parseRange(header), undefined, header);
});
