import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTierSpace } from './tier-space.ts';

test('a tier that is full of blobs which wait for S3 says at once that it has no room', () => {
  const space = createTierSpace({ maxSize: 100_000, observe: () => undefined, remove: () => assert.fail('a pinned blob is removed') });
  for (let index = 0; index < 100_000; index++) {
    space.pin(`${index}`);
    space.add(`${index}`, 1);
  }
  const started = performance.now();
  for (let count = 0; count < 20_000; count++) assert.equal(space.reserve().grow(1), false);
  const took = performance.now() - started;
  assert.ok(took < 5000, `${took} ms`); // milliseconds; half a minute if each call looks at every blob
});

test('a blob that no longer has to stay is evicted in its turn', () => {
  const removed: string[] = [];
  const space = createTierSpace({ maxSize: 3, observe: () => undefined, remove: (key) => removed.push(key) });
  for (const key of ['pinned', 'held', 'free']) space.add(key, 1);
  space.pin('pinned');
  space.hold('held');
  assert.equal(space.reserve().grow(2), false);
  assert.deepEqual(removed, ['free']);
  space.unpin('pinned');
  space.letGo('held');
  assert.equal(space.reserve().grow(2), true);
  assert.deepEqual(removed, ['free', 'pinned']);
  assert.equal(space.has('held'), true);
});
