import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDigest } from '../oci/digest.ts';
import { parseRepository, parseTag } from '../oci/reference.ts';
import { imagesQuerySchema } from './api/images.ts';
import { createImageSearch } from './image-search.ts';
import type { StoredImage } from './inventory.ts';

const IMAGES: StoredImage[] = Array.from({ length: 1000 }, (_, n) => ({
  repository: parseRepository(`hub/team-${Math.floor(n / 100)}/app`),
  tag: n % 10 === 9 ? undefined : parseTag(`V${n}`),
  digest: parseDigest(`sha256:${n.toString(16).padStart(64, '0')}`),
  size: ((n * 7919) % 1000) * 2 ** 30,
  wholeSize: undefined,
  platforms: [],
  complete: n % 2 === 0,
  lastUsed: n === 500 ? 0 : 1_700_000_000_000 + 1000 * ((n * 104_729) % 100_000),
  goneSince: n === 7 ? '2026-01-01T00:00:00.000Z' : undefined,
}));

const search = createImageSearch(IMAGES, {
  podsOf: ({ digest }) => (digest.endsWith('01') ? 3 : 0),
  isKept: ({ digest }) => digest.endsWith('02'),
  isDenied: () => false,
  nameOf: ({ repository }) => repository.replace(/^hub/, 'hub.example'),
});
const find = (query: Record<string, unknown>) => search.find(imagesQuerySchema.parse(query));

test('pages cover everything once, in both directions of every order', () => {
  for (const sort of ['name', 'size', 'lastUsed', 'pods']) {
    for (const order of ['asc', 'desc']) {
      const pages = [0, 300, 600, 900, 1200].map((offset) => find({ sort, order, offset, limit: 300 }));
      const all = pages.flatMap(({ images }) => images);
      assert.equal(new Set(all).size, 1000, `${sort} ${order}`);
      assert.ok(pages.every(({ total, totalBytes }) => total === 1000 && totalBytes === pages[0]?.totalBytes));
      const values = all.map(({ size, lastUsed }) => (sort === 'size' ? size : lastUsed));
      const sorted = values.toSorted((one, other) => (order === 'asc' ? one - other : other - one));
      if (sort === 'size' || sort === 'lastUsed') assert.deepEqual(values, sorted, `${sort} ${order}`);
    }
  }
});

test('all words have to match, in the name of the world or of the registry, the tag or the digest, in any case', () => {
  assert.equal(find({ search: 'hub.example/team-3' }).total, 100);
  assert.equal(find({ search: 'hub/team-3' }).total, 100);
  assert.equal(find({ search: 'TEAM-3  :v31' }).total, 9);
  assert.deepEqual(find({ search: 'v7', limit: 1 }).images[0]?.tag, 'V7');
  assert.equal(find({ search: IMAGES[999]?.digest ?? '' }).total, 1);
  assert.equal(find({ search: 'sha256:' }).total, 1000);
  assert.equal(find({ search: (IMAGES[999]?.digest ?? '').slice(-12) }).total, 1, 'a part of a digest');
  assert.equal(find({ search: '3e7' }).total, 0, 'a few digits are a part of a name');
  assert.equal(find({ search: 'app:v99 hub' }).total, 11 - 2);
  assert.equal(find({ search: '<script>' }).total, 0);
});

test('filters', () => {
  assert.equal(find({ filter: 'gone' }).total, 1);
  assert.equal(find({ filter: 'incomplete' }).total, 500);
  assert.equal(find({ filter: 'in-use' }).total + find({ filter: 'unused' }).total, 1000);
  assert.ok(find({ filter: 'kept' }).total > 0);
  assert.equal(find({ upstream: 'hub' }).total, 1000);
  assert.equal(find({ upstream: 'hu' }).total, 0);
  assert.deepEqual(search.upstreams, ['hub']);
});
