import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { captureLog } from '../../../test/support/log.ts';
import { readByStretches } from '../../../test/support/reading.ts';
import { temporaryDirectory } from '../../../test/support/temporary.ts';
import { filesystem } from '../filesystem/filesystem.ts';
import { localTier } from './local-tier.ts';
import { observeStores } from '../observed.ts';
import { bytesSource } from '../store.ts';
import { storeConformance } from '../../testing/store-suite.ts';

const context = { signal: AbortSignal.timeout(60_000) };
const key = (name: string) => `v1/blobs/sha256/00/${name}`;
const bytes = (size: number) => bytesSource(new Uint8Array(size));

storeConformance('the local tier', async () => {
  const directory = await temporaryDirectory();
  const files = await filesystem({ directory: directory.path });
  return {
    store: localTier(files, 2 ** 30, () => undefined),
    async [Symbol.asyncDispose]() {
      await files.close();
      await directory[Symbol.asyncDispose]();
    },
  };
});

async function setUp(maxSize: number) {
  const directory = await temporaryDirectory();
  const files = await filesystem({ directory: directory.path });
  const seen: number[] = [];
  const tier = localTier(files, maxSize, (used) => seen.push(used));
  const has = async (name: string) => (await files.stat(key(name), context)) !== undefined;
  /** Waits for an eviction, which happens in the background. */
  const gone = async (name: string) => {
    for (let tries = 0; tries < 500 && (await has(name)); tries++) await delay(10);
    return !(await has(name));
  };
  return { directory, files, tier, seen, has, gone, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

test('the least recently used blob is evicted when space runs out, and the bytes are reported', async () => {
  await using it = await setUp(1000);
  for (const name of ['a', 'b']) await it.tier.write(key(name), bytes(400), context);
  for await (const _ of (await it.tier.read(key('a'), context))?.body ?? []);
  await it.tier.write(key('c'), bytes(400), context);
  assert.ok(await it.gone('b'));
  assert.ok((await it.has('a')) && (await it.has('c')));
  assert.equal(it.seen.at(-1), 800);
  assert.equal(it.tier.used(), 800);
});

test('pinned blobs and blobs being read stay, and blobs written in the meantime are not kept', async () => {
  await using it = await setUp(1000);
  for (const name of ['pinned', 'read']) await it.tier.write(key(name), bytes(500), context);
  it.tier.pin(key('pinned'));
  const content = await it.tier.read(key('read'), context);
  assert.ok(content !== undefined);
  const room = it.tier.reserve();
  assert.equal(room.grow(100), false, 'blobs pass through uncached then');
  for await (const _ of content.body);
  assert.equal(room.grow(100), true);
  assert.ok(await it.gone('read'));
  room.release();
  it.tier.unpin(key('pinned'));
  assert.ok(await it.has('pinned'));
});

test('an abandoned body holds no resources', async () => {
  await using it = await setUp(1000);
  const reader = new AbortController();
  for (const leave of [
    async (body: AsyncIterable<Uint8Array>) => void (await body[Symbol.asyncIterator]().return?.()),
    async () => reader.abort(),
  ]) {
    await it.tier.write(key('x'), bytes(900), context);
    const content = await it.tier.read(key('x'), { signal: reader.signal });
    const room = it.tier.reserve();
    await delay(1);
    assert.equal(room.grow(500), false);
    await leave(content?.body ?? assert.fail());
    assert.equal(room.grow(500), true);
    room.release();
    assert.ok(await it.gone('x'));
  }
});

test('a blob larger than half of the tier replaces its own reservation', async () => {
  await using it = await setUp(1000);
  const room = it.tier.reserve();
  assert.ok(room.grow(700));
  room.release();
  await it.tier.write(key('large'), bytes(700), context);
  await delay(50);
  assert.ok(await it.has('large'));
  assert.equal(it.tier.used(), 700);
});

test('blobs of a former process count by their age, and blobs used since then as younger', async () => {
  await using it = await setUp(1000);
  for (const name of ['oldest', 'older']) {
    await it.files.write(key(name), bytes(400), context);
    await delay(20);
  }
  await it.tier.write(key('new'), bytes(400), context);
  assert.equal(it.tier.used(), 400);
  await it.tier.takeStock(context.signal);
  assert.ok(await it.gone('oldest'));
  assert.ok((await it.has('older')) && (await it.has('new')));
  assert.equal(it.tier.used(), 800);
});

test('a blob that is read may be sent as a file, and is kept until it has been sent', async () => {
  await using it = await setUp(3_000_000);
  const { log } = await captureLog();
  const store = observeStores({ log, failed: () => undefined })(it.tier);
  const content = Buffer.from(Array.from({ length: 2_000_000 }, (_, index) => (index * 2_654_435_761) >>> 24));
  await store.write(key('x'), bytesSource(content), context);
  const found = await store.read(key('x'), { ...context, range: { start: 7, end: 1_500_000 } });
  const room = it.tier.reserve();
  await delay(1);
  assert.equal(room.grow(2_000_000), false);
  const { bytes: read, filed } = await readByStretches(found?.body ?? assert.fail());
  assert.ok(read.equals(content.subarray(7, 1_500_001)));
  assert.ok(filed > 0);
  assert.equal(room.grow(2_000_000), true);
});
