import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDigest } from '../oci/digest.ts';
import { parseRepository, parseTag } from '../oci/reference.ts';
import { incompleteTagOf } from './incomplete-tags.ts';
import type { StoredImage, StoredImages } from './inventory.ts';

const SHOP = parseRepository('ghcr/acme/shop');

function storedOf(tags: Record<string, boolean>): StoredImages {
  const digest = parseDigest(`sha256:${'a'.repeat(64)}`);
  const facts = { digest, size: 1, wholeSize: 2, platforms: [], lastUsed: 0, goneSince: undefined };
  const images = Object.entries(tags).map(([tag, complete]): StoredImage => ({ repository: SHOP, tag: parseTag(tag), complete, ...facts }));
  return { images, manifests: new Map(), tags: new Map(), blobs: 1, bytes: 1, truncated: false };
}

test('a download has the name of the only tag whose image is not complete, and no name that may be wrong', () => {
  assert.equal(incompleteTagOf(storedOf({ '2.3': true, '2.4': false }), SHOP), '2.4');
  assert.equal(incompleteTagOf(storedOf({ '2.3': false, '2.4': false }), SHOP), null);
  assert.equal(incompleteTagOf(storedOf({ '2.4': true }), SHOP), null);
  assert.equal(incompleteTagOf(undefined, SHOP), null);
});
