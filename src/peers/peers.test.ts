import assert from 'node:assert/strict';
import { test } from 'node:test';
import { highest } from './peers.ts';

const digests = Array.from({ length: 3000 }, (_, index) => `sha256:${index}`);

test('promise 10: every replica owns about as many digests, and all agree on the owners', () => {
  const addresses = ['10.0.0.1', '10.0.0.2', 'fd00::3'];
  const owned = new Map<string | undefined, number>();
  for (const digest of digests) {
    const owner = highest(digest, addresses);
    assert.equal(highest(digest, addresses.toReversed()), owner);
    owned.set(owner, (owned.get(owner) ?? 0) + 1);
  }
  for (const address of addresses) assert.ok(Math.abs((owned.get(address) ?? 0) - 1000) < 150, `${address}: ${owned.get(address)}`);
  assert.equal(highest('sha256:1', []), undefined);
});

test('promise 10: when a replica goes, only the digests that it owned move', () => {
  for (const digest of digests) {
    const before = highest(digest, ['a', 'b', 'c']);
    if (before !== 'b') assert.equal(highest(digest, ['a', 'c']), before);
  }
});
