import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createByteRanges } from './byte-ranges.ts';

test('ranges give the same answers as a set of positions', () => {
  const part = fc.tuple(fc.nat(60), fc.nat(20));
  fc.assert(
    fc.property(fc.array(part), fc.nat(60), fc.nat(60), (parts, position, length) => {
      const ranges = createByteRanges();
      const set = new Set<number>();
      for (const [start, size] of parts) {
        ranges.add(start, start + size);
        for (let at = start; at < start + size; at++) set.add(at);
      }
      let end = position;
      while (set.has(end)) end++;
      assert.equal(ranges.endFrom(position), end);
      const missing = ranges
        .gaps(position, position + length)
        .flatMap(([from, to]) => Array.from({ length: to - from }, (_, at) => from + at));
      const expected = Array.from({ length }, (_, at) => position + at).filter((at) => !set.has(at));
      assert.deepEqual(missing, expected);
    }),
  );
});
