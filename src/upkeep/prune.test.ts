import assert from 'node:assert/strict';
import { utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { BLOB_MEDIA_TYPE, OCI_INDEX, OCI_MANIFEST } from '../oci/descriptor.ts';
import { digestOf, type Digest } from '../oci/digest.ts';
import { parseRepository, parseTag, type Repository } from '../oci/reference.ts';
import { filesystem, type FilesystemStore } from '../store/filesystem/filesystem.ts';
import { blobKey, memberKey, ownerKey, OWNERS, seenKey, tagKey, usedKey } from '../store/keys.ts';
import { memory } from '../testing/memory-store.ts';
import { keysOf } from '../testing/store-suite.ts';
import { bytesSource, type Store } from '../store/store.ts';
import { takeInventory } from './inventory.ts';
import { isHeld, readLease, takeLease } from './lease.ts';
import type { Limits } from './plan.ts';
import { prune, type PruneResult } from './prune.ts';
import { pruneRegularly } from './schedule.ts';
import { captureLog } from '../../test/support/log.ts';

const DAY = 86_400_000;
const context = { signal: new AbortController().signal };
const write = (store: Store, key: string, content: string | Buffer) => store.write(key, bytesSource(Buffer.from(content)), context);

interface Pulled {
  repository: Repository;
  digest: Digest;
  layers: Digest[];
}

/** Stores what a registry keeps after a pull of `name` with these layers' contents. */
async function pull(store: Store, name: string, layers: string[], { tag = 'latest', ago = 0, prefix = 'hub' } = {}): Promise<Pulled> {
  const repository = parseRepository(`${prefix}/${name}`);
  const kept = await Promise.all(layers.map((content) => keep(store, repository, { content, mediaType: BLOB_MEDIA_TYPE })));
  const manifest = JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: kept[0], layers: kept.slice(1) });
  const { digest } = await keep(store, repository, { content: manifest, mediaType: OCI_MANIFEST });
  await write(store, tagKey(repository, parseTag(tag)), JSON.stringify({ digest, checkedAt: new Date().toISOString() }));
  await write(store, usedKey(new Date(Date.now() - ago * DAY), repository, digest), '');
  return { repository, digest, layers: kept.map(({ digest }) => digest) };
}

async function keep(store: Store, repository: Repository, { content, mediaType }: { content: string; mediaType: string }) {
  const digest = digestOf(Buffer.from(content));
  await write(store, blobKey(digest), content);
  await write(store, memberKey(repository, digest), JSON.stringify({ mediaType, size: content.length }));
  return { mediaType, digest, size: content.length };
}

test('a blob whose record has further fields is no manifest, however long its record is', async () => {
  const store = memory();
  const { repository, digest, layers } = await pull(store, 'app', ['a config', '{"json":"that names nothing"}']);
  for (const layer of layers) {
    const record = { mediaType: BLOB_MEDIA_TYPE, size: 10, added: 'by a later release of this program' };
    await write(store, memberKey(repository, layer), JSON.stringify(record));
  }
  const { images } = await takeInventory(store, context);
  assert.deepEqual(
    images.map((image) => image.digest),
    [digest],
  );
});

function run(store: Store, limits: Partial<Limits>, dryRun = false): Promise<PruneResult> {
  return prune(store, {
    signal: context.signal,
    limits: () => Promise.resolve({ now: Date.now(), grace: DAY, maxSize: 0, maxAge: 0, ...limits }),
    dryRun,
  });
}

/** Sets the modification time of all stored objects to this many days ago. */
async function age(store: FilesystemStore, days: number, keys?: string[]): Promise<void> {
  const then = new Date(Date.now() - days * DAY);
  for (const key of keys ?? (await keysOf(store, ''))) await utimes(join(store.directory, key), then, then);
}

async function onDisk(work: (store: FilesystemStore) => Promise<void>): Promise<void> {
  await using temporary = await temporaryDirectory();
  const store = await filesystem({ directory: temporary.path });
  await work(store);
  await store.close();
}

test('an old image is removed with its tags, records and layers; blobs shared with another image stay', () =>
  onDisk(async (store) => {
    const old = await pull(store, 'old', ['old config', 'base', 'old layer'], { ago: 40 });
    await write(store, tagKey(old.repository, parseTag('also')), JSON.stringify({ digest: old.digest }));
    const fresh = await pull(store, 'fresh', ['fresh config', 'base'], { ago: 3 });
    await age(store, 40);
    const all = await keysOf(store, '');
    const planned = await run(store, { maxAge: 7 * DAY }, true);
    assert.deepEqual(await keysOf(store, ''), all, 'a dry run removes nothing');

    const result = await run(store, { maxAge: 7 * DAY });
    const { images, ...counts } = result;
    const { images: plannedImages, ...plannedCounts } = planned;
    assert.deepEqual(counts, plannedCounts, 'it answers as the real one does');
    assert.deepEqual(
      [images, plannedImages].map((list) => list.map(({ image }) => image.digest)),
      [[old.digest], [old.digest]],
    );
    const [, base = ''] = old.layers;
    const left = await keysOf(store, '');
    assert.deepEqual(
      left.filter((key) => key.startsWith('v1/blobs/')),
      [fresh.digest, ...fresh.layers].map(blobKey).sort(),
    );
    assert.ok(fresh.layers.includes(base as Digest));
    assert.deepEqual(
      left.filter((key) => key.includes('/old/')),
      [memberKey(old.repository, base as Digest)],
      'only that it may have the layer that is still there',
    );
    assert.equal(result.blobs, 3);
    assert.equal((await run(store, { maxAge: 7 * DAY })).blobs, 0, 'the second time there is nothing to do');
  }));

test('the record of when an image was first seen stays with the image, and without it for a year', () =>
  onDisk(async (store) => {
    const { digest } = await pull(store, 'kept', ['kept config', 'kept layer'], { ago: 3 });
    const [recent, old] = [digestOf(Buffer.from('seen lately')), digestOf(Buffer.from('seen long ago'))];
    for (const own of [digest, recent, old]) await write(store, seenKey(own), JSON.stringify({ at: '2020-01-01T00:00:00.000Z' }));
    await age(store, 300, [seenKey(recent)]);
    await age(store, 400, [seenKey(digest), seenKey(old)]);
    const seen = () => keysOf(store, 'v1/seen/');
    assert.equal((await run(store, {}, true)).records, 1);
    assert.equal((await seen()).length, 3, 'a dry run removes nothing');
    assert.equal((await run(store, {})).records, 1);
    assert.deepEqual(await seen(), [digest, recent].map(seenKey).sort());
  }));

test('records of an abandoned repository are removed, unless only they keep an image that was used within a month', () =>
  onDisk(async (store) => {
    const abandoned = 'abandoned/hub';
    const isAbandoned = (repository: Repository): boolean => repository.startsWith('abandoned/');
    const limits = () => Promise.resolve({ now: Date.now(), grace: DAY, maxSize: 0, maxAge: 0 });
    const pruned = (dryRun = false) => prune(store, { signal: context.signal, limits, isAbandoned, keep: keepOf, dryRun });
    let inUse: Digest | undefined;
    const keepOf = () => Promise.resolve(({ digest }: { digest: Digest }) => (digest === inUse ? ('in-use' as const) : undefined));

    for (const prefix of [abandoned, 'hub']) await pull(store, 'shared', ['shared config', 'shared layer'], { ago: 3, prefix });
    const alone = await pull(store, 'alone', ['config', 'layer'], { ago: 3, prefix: abandoned });
    const old = await pull(store, 'old', ['old config', 'old layer'], { ago: 40, prefix: abandoned });
    const used = await pull(store, 'used', ['used config', 'used layer'], { ago: 40, prefix: abandoned });
    inUse = used.digest;
    await age(store, 40);
    await pull(store, 'young', ['young config', 'young layer'], { ago: 0, prefix: abandoned });
    const all = await keysOf(store, '');
    const kept = ({ repository, digest }: Pulled): string[] => [memberKey(repository, digest), tagKey(repository, parseTag('latest'))];
    const recordsOf = (keys: readonly string[], name: string) => keys.filter((key) => key.startsWith(`v1/repos/${name}`));

    const planned = await pruned(true);
    assert.deepEqual(await keysOf(store, ''), all, 'a dry run removes nothing');
    assert.equal((await pruned()).records, planned.records);
    const left = await keysOf(store, '');
    assert.deepEqual(recordsOf(left, `${abandoned}/shared`), []);
    assert.deepEqual(recordsOf(left, `${abandoned}/old`), []);
    assert.deepEqual(recordsOf(left, `${abandoned}/alone`), kept(alone).sort());
    assert.deepEqual(recordsOf(left, `${abandoned}/used`), kept(used).sort());
    for (const name of [`${abandoned}/young`, 'hub/shared']) assert.deepEqual(recordsOf(left, name), recordsOf(all, name), name);
    assert.ok(left.includes(blobKey(old.digest)), 'this run has counted it as an image');

    await pruned();
    const blobs = (await keysOf(store, '')).filter((key) => key.startsWith('v1/blobs/'));
    for (const digest of [old.digest, ...old.layers]) assert.ok(!blobs.includes(blobKey(digest)), 'no image names it any more');
    for (const digest of [alone.digest, ...alone.layers, used.digest, ...used.layers]) assert.ok(blobs.includes(blobKey(digest)));
  }));

test('the least recently used images go until the rest fits', () =>
  onDisk(async (store) => {
    const sizes = [9, 5, 7, 3].map(async (ago) => pull(store, `app${ago}`, [`config ${ago}`, `${ago}`.repeat(10_000)], { ago }));
    const images = await Promise.all(sizes);
    await age(store, 10);
    const result = await run(store, { maxSize: 25_000 });
    assert.deepEqual(
      result.images.map(({ image, because }) => [image.digest, because]),
      [
        [images[0]?.digest, 'size'],
        [images[2]?.digest, 'size'],
      ],
    );
    assert.ok(result.before - result.bytes <= 25_000);
    assert.equal(result.overLimit, false);
  }));

test('promise 13: young manifests, layers without one, and records stay, whatever the limit', () =>
  onDisk(async (store) => {
    await pull(store, 'young', ['config', 'layer'], { ago: 30 });
    await keep(store, parseRepository('hub/young'), { content: 'nobody names it yet', mediaType: BLOB_MEDIA_TYPE });
    const all = (await keysOf(store, '')).filter((key) => !key.startsWith('v1/used/'));
    const result = await run(store, { maxSize: 1, maxAge: 1 });
    assert.deepEqual(
      (await keysOf(store, '')).filter((key) => !key.startsWith('v1/used/')),
      all,
    );
    assert.equal(result.overLimit, true, 'and the result says that the limit cannot be kept');
  }));

test('blobs that no manifest names go when they are older than a day, with the names of their owners', () =>
  onDisk(async (store) => {
    const image = await pull(store, 'app', ['config', 'layer']);
    const stray = await keep(store, image.repository, { content: 'stray', mediaType: BLOB_MEDIA_TYPE });
    const young = await keep(store, image.repository, { content: 'young', mediaType: BLOB_MEDIA_TYPE });
    const [, layer = stray.digest] = image.layers;
    for (const digest of [layer, stray.digest, young.digest]) await write(store, ownerKey(digest, image.repository), '');
    await age(store, 2);
    await age(store, 0.5, [blobKey(young.digest)]);
    const result = await run(store, {});
    assert.equal(result.blobs, 1);
    const owned = [layer, young.digest].map((digest) => ownerKey(digest, image.repository));
    assert.deepEqual(await keysOf(store, OWNERS), owned.sort());
    assert.equal(await store.stat(blobKey(stray.digest), context), undefined);
    assert.equal(await store.stat(memberKey(image.repository, stray.digest), context), undefined);
    assert.ok(await store.stat(blobKey(young.digest), context));
  }));

test('an index keeps its manifests and their layers', () =>
  onDisk(async (store) => {
    const image = await pull(store, 'multi', ['config', 'layer'], { ago: 60 });
    const index = JSON.stringify({
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [
        { mediaType: OCI_MANIFEST, digest: image.digest, size: 1 },
        { mediaType: OCI_MANIFEST, digest: digestOf(Buffer.from('another platform, never pulled')), size: 1 },
      ],
    });
    const { digest } = await keep(store, image.repository, { content: index, mediaType: OCI_INDEX });
    await write(store, usedKey(new Date(Date.now() - 3 * DAY), image.repository, digest), '');
    await age(store, 60);
    assert.equal((await run(store, { maxAge: 30 * DAY, maxSize: 0 })).images.length, 0);
    const later = await run(store, { maxAge: 30 * DAY, now: Date.now() + 60 * DAY });
    assert.equal(later.images.length, 2);
    assert.deepEqual(
      (await keysOf(store, '')).filter((key) => key.startsWith('v1/blobs/')),
      [],
    );
  }));

test('promise 13: an image pulled while its removal is being decided stays, with everything that it names', () =>
  onDisk(async (store) => {
    const image = await pull(store, 'app', ['config', 'layer'], { ago: 60 });
    await age(store, 60);
    const result = await prune(store, {
      signal: context.signal,
      async limits() {
        await write(store, usedKey(new Date(), image.repository, image.digest), '');
        return { now: Date.now(), grace: DAY, maxSize: 1, maxAge: DAY };
      },
    });
    assert.deepEqual([result.images.length, result.spared, result.blobs], [0, 1, 0]);
    assert.ok(await store.stat(blobKey(image.layers[1] ?? image.digest), context));
  }));

test('promise 13: a layer that a just stored image names stays, although the older image goes', () =>
  onDisk(async (store) => {
    const old = await pull(store, 'old', ['old config', 'base'], { ago: 60 });
    await age(store, 60);
    const [, base] = old.layers;
    assert.ok(base !== undefined);
    const result = await prune(store, {
      signal: context.signal,
      async limits() {
        const repository = parseRepository('hub/new');
        const manifest = JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, layers: [{ digest: base, size: 4 }] });
        const { digest } = await keep(store, repository, { content: manifest, mediaType: OCI_MANIFEST });
        await write(store, usedKey(new Date(), repository, digest), '');
        return { now: Date.now(), grace: DAY, maxSize: 0, maxAge: DAY };
      },
    });
    assert.equal(result.images.length, 1);
    assert.ok(await store.stat(blobKey(base), context));
  }));

test('the days of use beyond a month go, the last one of an image never', () =>
  onDisk(async (store) => {
    const used = await pull(store, 'used', ['config'], { ago: 50 });
    for (const ago of [49, 40, 29, 2]) await write(store, usedKey(new Date(Date.now() - ago * DAY), used.repository, used.digest), '');
    const unused = await pull(store, 'unused', ['another config'], { ago: 90 });
    await write(store, usedKey(new Date(Date.now() - 5 * DAY), unused.repository, digestOf(Buffer.from('long gone'))), '');
    await age(store, 2);
    await run(store, {});
    const { images } = await takeInventory(store, context);
    const days = new Map(images.flatMap(({ places }) => places.map(({ repository, days }) => [repository, days])));
    assert.deepEqual(
      days,
      new Map([
        [used.repository, 2],
        [unused.repository, 1],
      ]),
    );
    assert.equal((await keysOf(store, 'v1/used/')).length, 3);
  }));

test('a store that cannot be read ends a run before anything is removed', async () => {
  const store = memory();
  await pull(store, 'one', ['config 1', 'layer 1'], { ago: 60 });
  await pull(store, 'two', ['config 2', 'layer 2'], { ago: 60 });
  const all = await keysOf(store, '');
  let reads = 0;
  const failing: Store = {
    ...store,
    read: (key, own) => (++reads === 2 ? Promise.reject(new Error('the line was cut')) : store.read(key, own)),
  };
  await assert.rejects(run(failing, { maxAge: 1, grace: 0, now: Date.now() + 3 * DAY }), /the line was cut/);
  assert.deepEqual(await keysOf(store, ''), all);
});

test('a run that was ended at any call to the store is finished by the next', async () => {
  for (let calls = 0, ended = true; ended; calls++) {
    const store = memory();
    await pull(store, 'old', ['config 1', 'base', 'layer 1'], { ago: 60 });
    const kept = await pull(store, 'kept', ['config 2', 'base'], { ago: -50 });
    const limits = { maxAge: 30 * DAY, grace: 0, now: Date.now() + 60 * DAY };
    const stop = new AbortController();
    let left = calls;
    const counted = async <Value>(call: () => Promise<Value>): Promise<Value> => {
      if (left-- <= 0) stop.abort(new Error('killed'));
      stop.signal.throwIfAborted();
      return call();
    };
    const mortal: Store = { ...store, remove: (key, own) => counted(() => store.remove(key, own)) };
    ended = await run(mortal, limits).then(
      () => false,
      () => true,
    );
    for (const digest of [kept.digest, ...kept.layers]) assert.ok(await store.stat(blobKey(digest), context), `after ${calls} removals`);
    await run(store, limits);
    assert.deepEqual(
      (await keysOf(store, 'v1/blobs/')).length + (await keysOf(store, 'v1/repos/')).length,
      3 + 3 + 1 + 1, // its blobs, their access records and the tag; and the other image's access record of the shared blob
      `after ${calls} removals`,
    );
    assert.ok(calls < 50);
  }
});

test('two concurrent runs over one store remove no more than one', () =>
  onDisk(async (store) => {
    const images = [];
    for (let ago = 3; ago < 23; ago++) images.push(await pull(store, `app${ago}`, [`config ${ago}`, 'x'.repeat(1000) + ago], { ago }));
    await age(store, 30);
    await Promise.all([run(store, { maxSize: 13_000 }), run(store, { maxSize: 13_000 })]);
    const { images: left, blobs } = await takeInventory(store, context);
    assert.deepEqual(new Set(left.map(({ digest }) => digest)), new Set(images.slice(0, left.length).map(({ digest }) => digest)));
    assert.ok(blobs.bytes() <= 13_000 && blobs.bytes() > 11_000, `${blobs.bytes()}`);
    assert.ok(left.every(({ missing }) => missing.length === 0));
  }));

test('one of several concurrent candidates gets the lease, and a dead holder loses it', async () => {
  const store = memory();
  const timing = { lifetime: 6000, settle: 200 };
  const turns = await Promise.all([1, 2, 3].map(() => takeLease(store, context, timing)));
  const [won] = turns.filter((turn) => 'lease' in turn);
  assert.equal(turns.filter((turn) => 'lease' in turn).length, 1);
  assert.ok('holder' in (await takeLease(store, context, timing)));
  await won?.lease.release(true);
  const state = await readLease(store, context);
  assert.ok(state !== undefined && !isHeld(state) && state.finishedAt !== '');

  await write(store, 'v1/pruning', JSON.stringify({ owner: 'dead', renewedAt: new Date(Date.now() - 7000).toISOString() }));
  const taken = await takeLease(store, context, timing);
  assert.ok('lease' in taken);
  await write(store, 'v1/pruning', JSON.stringify({ owner: 'a thief', renewedAt: new Date().toISOString() }));
  await new Promise((resolve) => taken.lease.signal.addEventListener('abort', resolve, { once: true }));
  await taken.lease.release(true);
  assert.equal((await readLease(store, context))?.owner, 'a thief', 'a lost lease is not released');
});

test('replicas prune in turn, log the result, and continue after a failure', async () => {
  const store = memory();
  await pull(store, 'old', ['config', 'layer'], { ago: 60 });
  const stop = new AbortController();
  const log = await captureLog();
  const pruned: [number, number][] = [];
  const failing: boolean[] = [];
  let failures = 0;
  const replica = () =>
    pruneRegularly({
      store,
      async limits() {
        if (failures++ === 0) throw new Error('no volume');
        return { now: Date.now() + 60 * DAY, grace: 0, maxSize: 0, maxAge: 30 * DAY };
      },
      timing: { first: 10, interval: 1000, lease: { lifetime: 6000, settle: 250 } },
      log: log.log,
      metrics: { pruned: (objects, bytes) => pruned.push([objects, bytes]), pruningFails: (isFailing) => failing.push(isFailing) },
      stop: stop.signal,
    });
  const running = Promise.all([replica(), replica(), replica()]);
  for (let tries = 0; tries < 1000 && !pruned.some(([, bytes]) => bytes > 0); tries++) await delay(20);
  stop.abort();
  await running;
  assert.equal(pruned.filter(([, bytes]) => bytes > 0).length, 1);
  assert.deepEqual(await keysOf(store, 'v1/blobs/'), []);
  assert.ok(log.entries().some(({ event }) => event === 'store-pruned'));
  assert.ok(log.entries().some(({ event }) => event === 'pruning-failed'));
  assert.deepEqual([failing.filter(Boolean).length, failing.at(-1)], [1, false]);
});

test('promise 13: a run that would remove more than its share of the store removes nothing, unless forced to', () =>
  onDisk(async (store) => {
    await pull(store, 'old', ['old config', 'old layer'], { ago: 40 });
    await pull(store, 'fresh', ['fresh'], { ago: 3 });
    await age(store, 40);
    const all = await keysOf(store, '');
    const limits = () => Promise.resolve({ now: Date.now(), grace: DAY, maxSize: 0, maxAge: 7 * DAY });
    const { signal } = context;
    await assert.rejects(prune(store, { signal, limits, maxShare: 0.1 }), { code: 'DENIED' });
    assert.deepEqual(await keysOf(store, ''), all);
    assert.equal(
      (await prune(store, { signal, limits, maxShare: 0.1, dryRun: true })).images.length,
      1,
      'a dry run shows what would be removed',
    );
    assert.equal(
      (await prune(store, { signal, limits: async (stored) => ({ ...(await limits()), maxAge: 0, maxSize: stored - 1 }), maxShare: 0 }))
        .images.length,
      1,
      'a limit of the size is meant to be reached',
    );
  }));

test('promise 13: an image that one listing leaves out and the next one has loses nothing', () =>
  onDisk(async (store) => {
    const { digest, repository } = await pull(store, 'hidden', ['config', 'layer'], { ago: 3 });
    await pull(store, 'other', ['other'], { ago: 3 });
    await age(store, 40);
    const all = await keysOf(store, '');
    for (const hidden of [blobKey(digest), memberKey(repository, digest), usedKey(new Date(Date.now() - 3 * DAY), repository, digest)]) {
      let isHidden = true;
      const leavingOut: Store = {
        ...store,
        async *list(prefix, options) {
          for await (const object of store.list(prefix, options)) {
            if (object.key !== hidden || !isHidden) yield object;
            else isHidden = false;
          }
        },
      };
      await assert.rejects(run(leavingOut, { maxAge: 7 * DAY }), { code: 'UNAVAILABLE' }, hidden);
      assert.deepEqual(await keysOf(store, ''), all);
    }
  }));
