import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf, type Digest } from '../oci/digest.ts';
import { parseRepository } from '../oci/reference.ts';
import { createBlobTable } from './blob-table.ts';
import type { Image } from './inventory.ts';
import { countReferences, planPruning, type Limits } from './plan.ts';

const DAY = 86_400_000;
const NOW = Date.parse('2026-03-31T12:00:00Z');
const day = (ago: number): string => new Date(NOW - ago * DAY).toISOString().slice(0, 10);

/** `used`: days ago, in each of its repositories; `stored`: days ago. */
interface Blob {
  size: number;
  stored?: number;
  names?: string[];
  index?: true;
  subject?: string;
  used?: number | number[];
}

/** A store of blobs by name; those that have `names` are images. */
function storeOf(blobs: Record<string, Blob>) {
  const table = createBlobTable();
  const digest = (name: string): Digest => digestOf(Buffer.from(name));
  const names = Object.keys(blobs).sort((one, other) => (digest(one) < digest(other) ? -1 : 1));
  for (const name of names) table.add(digest(name), blobs[name]?.size ?? 0, NOW - (blobs[name]?.stored ?? 40) * DAY);
  const images: Image[] = [];
  for (const [name, { names, index, subject, used }] of Object.entries(blobs)) {
    if (names === undefined) continue;
    images.push({
      digest: digest(name),
      blob: table.find(digest(name)),
      places: [used ?? []].flat().map((ago, index) => ({
        repository: parseRepository(`hub/${name}${index}`),
        days: 1,
        lastDay: day(ago),
        usedAt: NOW - ago * DAY,
      })),
      names: Uint32Array.from(names.map((named) => table.find(digest(named)))),
      missing: [],
      isIndex: index === true,
      subject: subject === undefined ? undefined : digest(subject),
      corrupt: false,
    });
  }
  return { blobs: table, images, byDigest: new Map(images.map((image) => [image.digest, image])), names, digest };
}

const cases: { says: string; blobs: Record<string, Blob>; limits?: Partial<Limits>; go: string[]; after: number }[] = [
  {
    says: 'without limits, only unreferenced blobs are removed',
    blobs: { app: { size: 1, names: ['layer'], used: 30 }, layer: { size: 100 }, stray: { size: 1000 } },
    go: [],
    after: 101,
  },
  {
    says: 'young unreferenced blobs stay: their manifest may still arrive',
    blobs: { stray: { size: 1000, stored: 0.5 } },
    go: [],
    after: 1000,
  },
  {
    says: 'the least recently used image goes first, and no more than must',
    blobs: {
      old: { size: 1, names: ['a'], used: 20 },
      older: { size: 1, names: ['b'], used: 30 },
      recent: { size: 1, names: ['c'], used: 10 },
      a: { size: 100 },
      b: { size: 100 },
      c: { size: 100 },
    },
    limits: { maxSize: 210 },
    go: ['older'],
    after: 202,
  },
  {
    says: 'a layer that another image names stays, and frees nothing',
    blobs: {
      older: { size: 1, names: ['base', 'b'], used: 30 },
      old: { size: 1, names: ['base', 'a'], used: 20 },
      recent: { size: 1, names: ['c'], used: 10 },
      base: { size: 1000 },
      a: { size: 10 },
      b: { size: 10 },
      c: { size: 10 },
    },
    limits: { maxSize: 100 },
    go: ['older', 'old'],
    after: 11,
  },
  {
    says: 'an image that was pulled today or yesterday stays, however little there may be',
    blobs: {
      today: { size: 1, names: [], used: 0 },
      yesterday: { size: 1, names: [], used: 1 },
      before: { size: 1, names: [], used: 2 },
    },
    limits: { maxSize: 1, maxAge: 1 },
    go: ['before'],
    after: 2,
  },
  {
    says: 'an image that was stored today stays although no pull is recorded',
    blobs: { fresh: { size: 1, names: [], stored: 0.1 }, stale: { size: 1, names: [], stored: 3 } },
    limits: { maxSize: 1, maxAge: 1 },
    go: ['stale'],
    after: 1,
  },
  {
    says: 'images that were not pulled for longer than maxAge are removed, whatever their size',
    blobs: { a: { size: 5, names: [], used: 8 }, b: { size: 5, names: [], used: 6 }, c: { size: 5, names: [], stored: 9 } },
    limits: { maxAge: 7 * DAY },
    go: ['c', 'a'],
    after: 5,
  },
  {
    says: 'a day counts to its end: the record is written by the first pull of it',
    blobs: { a: { size: 5, names: [], used: 8 } },
    limits: { maxAge: 7 * DAY + DAY / 2 - 1 },
    go: ['a'],
    after: 0,
  },
  {
    says: 'an index keeps its manifests: they were used when it was',
    blobs: {
      index: { size: 1, names: ['amd64', 'arm64'], index: true, used: 3 },
      amd64: { size: 1, names: ['x'], used: 30 },
      arm64: { size: 1, names: [] },
      x: { size: 100 },
      other: { size: 1, names: [], used: 20 },
    },
    limits: { maxSize: 103, maxAge: 0 },
    go: ['other'],
    after: 103,
  },
  {
    says: 'an index goes before what it names, and what is used by itself stays',
    blobs: {
      index: { size: 1, names: ['amd64', 'arm64'], index: true, used: 30 },
      amd64: { size: 1, names: ['x'], used: 0 },
      arm64: { size: 1, names: ['y'], used: 30 },
      x: { size: 100 },
      y: { size: 100 },
    },
    limits: { maxAge: 7 * DAY },
    go: ['index', 'arm64'],
    after: 101,
  },
  {
    says: 'an index of indexes keeps what those name',
    blobs: {
      outer: { size: 1, names: ['inner'], index: true, used: 0 },
      inner: { size: 1, names: ['image'], index: true, used: 30 },
      image: { size: 1, names: ['x'], used: 30 },
      x: { size: 100 },
    },
    limits: { maxSize: 1, maxAge: DAY },
    go: [],
    after: 103,
  },
  {
    says: 'a signature stays as long as its image is used, and goes after it',
    blobs: {
      signature: { size: 1, names: [], subject: 'image', used: 30 },
      image: { size: 1, names: [], used: 10 },
      other: { size: 1, names: [], used: 20 },
      orphan: { size: 1, names: [], subject: 'nothing', used: 25 },
    },
    limits: { maxSize: 2 },
    go: ['orphan', 'other'],
    after: 2,
  },
  {
    says: 'a young layer of an image that goes is not counted as freed',
    blobs: { app: { size: 1, names: ['young', 'old'], used: 9 }, young: { size: 10, stored: 0.5 }, old: { size: 100 } },
    limits: { maxAge: DAY },
    go: ['app'],
    after: 10,
  },
  {
    says: 'of an image in two repositories the later use counts',
    blobs: { app: { size: 1, names: [], used: [3, 30] }, other: { size: 1, names: [], used: 5 } },
    limits: { maxSize: 1 },
    go: ['other'],
    after: 1,
  },
];

for (const { says, blobs, limits, go, after } of cases) {
  test(says, () => {
    const store = storeOf(blobs);
    const plan = planPruning(store, { now: NOW, grace: DAY, maxSize: 0, maxAge: 0, ...limits });
    const nameOf = (digest: Digest) => store.names.find((name) => store.digest(name) === digest);
    assert.deepEqual(
      plan.departures.map(({ image }) => nameOf(image.digest)),
      go,
    );
    assert.equal(plan.after, after);
    assert.equal(plan.before, store.blobs.bytes());
    const gone = new Set(plan.departures.map(({ image }) => image));
    const staying = store.images.filter((image) => !gone.has(image));
    const references = countReferences(store.blobs, staying);
    for (const image of staying) for (const blob of image.names) assert.ok((references[blob] ?? 0) > 0);
    for (const { image } of plan.departures) assert.equal(references[image.blob], 0, 'no kept manifest refers to a removed one');
  });
}
