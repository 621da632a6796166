import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { test } from 'node:test';
import { BLOB_MEDIA_TYPE, OCI_INDEX, OCI_MANIFEST } from '../src/oci/descriptor.ts';
import { digestOf, type Digest } from '../src/oci/digest.ts';
import { joinRepository, parseRepository, parseTag } from '../src/oci/reference.ts';
import { blobKey, BLOBS, memberKey, tagKey, usedKey } from '../src/store/keys.ts';
import type { S3Store } from '../src/store/s3/options.ts';
import { s3 } from '../src/store/s3/s3.ts';
import { bytesSource } from '../src/store/store.ts';
import type { KeepCandidate } from '../src/upkeep/keep.ts';
import { prune } from '../src/upkeep/prune.ts';
import { startLyingProxy, type Lie, type LyingProxy } from './support/lying-proxy.ts';
import { startVersitygw, type Versitygw } from './support/versitygw.ts';

// PRUNE_RUNS=10000 node --test test/prune-faults.test.ts: `npm test` limits the time of each file.

const RUNS = Number(process.env['PRUNE_RUNS'] ?? 40);
/** Stores that are pruned at the same time, over one server. */
const WORLDS = RUNS > 1000 ? 24 : 4;
const DAY = 86_400_000;
/** When it is for the pruning: all that is stored now is two months old then. */
const NOW = Date.now() + 60 * DAY;

const LIES: Lie[] = [
  { answer: 404, type: 'html' },
  { answer: 404, type: 'none' },
  { answer: 404, type: 'xml', code: 'NoSuchKey' },
  { answer: 404, type: 'xml', code: 'XAdminUserNotFound' },
  { answer: 403, type: 'xml', code: 'AccessDenied' },
  { answer: 403, type: 'html' },
  { answer: 500, type: 'xml' },
  { answer: 502, type: 'html' },
  { answer: 200, type: 'none' },
  { answer: 200, type: 'html' },
  'cut',
  'keys-missing',
  'short-page',
];

interface World {
  /** Stores past the proxy. */
  direct: S3Store;
  /** The stores behind the proxy, which are pruned. */
  pruned: S3Store;
  proxy: LyingProxy;
  /** Content that must never be removed. */
  kept: Set<string>;
  directory: string;
}

async function put(store: S3Store, key: string, content: string): Promise<string> {
  await store.write(key, bytesSource(Buffer.from(content)), { signal: AbortSignal.timeout(60_000) });
  return key;
}

/** Stores an image as pulls do, last pulled so many days before NOW. @returns its keys */
async function image(
  store: S3Store,
  name: string,
  { layers, age, isIndex = false, tag = 'v1' }: { layers: string[]; age: number; isIndex?: boolean; tag?: string },
): Promise<string[]> {
  const repository = joinRepository('hub', parseRepository(name));
  const keys: string[] = [];
  const keep = async (content: string, mediaType: string): Promise<{ digest: Digest; mediaType: string; size: number }> => {
    const digest = digestOf(Buffer.from(content));
    keys.push(await put(store, blobKey(digest), content));
    keys.push(await put(store, memberKey(repository, digest), JSON.stringify({ mediaType, size: content.length })));
    return { digest, mediaType, size: content.length };
  };
  const blobs = await Promise.all(layers.map((layer) => keep(layer, BLOB_MEDIA_TYPE)));
  const manifest = await keep(
    JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config: blobs[0], layers: blobs.slice(1) }),
    OCI_MANIFEST,
  );
  const named = isIndex
    ? await keep(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [manifest] }), OCI_INDEX)
    : manifest;
  keys.push(
    await put(store, tagKey(repository, parseTag(tag)), JSON.stringify({ digest: named.digest, checkedAt: new Date().toISOString() })),
  );
  keys.push(await put(store, usedKey(new Date(NOW - age * DAY), repository, named.digest), ''));
  return keys;
}

async function createWorld(server: Versitygw, index: number): Promise<World & AsyncDisposable> {
  const { endpoint, region, bucket, accessKeyId, secretAccessKey } = server;
  const proxy = await startLyingProxy(endpoint);
  const options = { bucket, region, forcePathStyle: true, createBucket: false, prefix: `world-${index}/` };
  const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey });
  const direct = s3({ ...options, endpoint, credentials });
  const pruned = s3({ ...options, endpoint: proxy.url, credentials });
  const kept = new Set<string>();
  for (let one = 0; one < 3; one++) {
    const layers = [`config ${one}`, 'shared base', `layer ${one}`];
    for (const key of await image(direct, `kept/${one}`, { layers, age: 2 + one, isIndex: one === 0 })) kept.add(key);
  }
  const pinned = { layers: ['pinned config', 'shared base', 'pinned layer'], age: 50, tag: 'pinned' };
  for (const key of await image(direct, 'kept/pinned', pinned)) kept.add(key);
  const directory = `${server.directory}/world-${index}`;
  return {
    direct,
    pruned,
    proxy,
    kept,
    directory,
    async [Symbol.asyncDispose]() {
      await Promise.all([direct.close(), pruned.close(), proxy[Symbol.asyncDispose]()]);
    },
  };
}

async function present(directory: string): Promise<Set<string>> {
  const entries = await readdir(directory, { recursive: true });
  return new Set(entries);
}

/** One run on a bad day. @returns whether it came to its end */
async function runOnce({ direct, pruned, proxy, kept, directory }: World): Promise<boolean> {
  const old = await image(direct, 'old', { layers: ['old config', 'shared base', 'old layer'], age: 45 });
  await put(direct, blobKey(digestOf(Buffer.from('orphan'))), 'orphan');
  const rate = [0, 0.03, 0.1, 0.3][Math.floor(4 * Math.random())] ?? 0;
  // How often a listing leaves out keys in a way that nothing shows.
  const hides = [0, 0.02, 0.06][Math.floor(3 * Math.random())] ?? 0;
  let lied = false;
  proxy.lie = ({ isListing }) => {
    if (isListing && Math.random() < hides) {
      lied = true;
      return Math.random() < 0.5 ? 'keys-hidden' : 'empty-page';
    }
    if (Math.random() >= rate) return undefined;
    lied = true;
    return LIES[Math.floor(LIES.length * Math.random())];
  };
  const keep = ({ tags }: KeepCandidate) => (tags.some((tag) => tag === 'pinned') ? 'pinned' : undefined);
  const limits = () => Promise.resolve({ now: NOW, grace: DAY, maxSize: 0, maxAge: 30 * DAY });
  const failure = await prune(pruned, { limits, keep: () => Promise.resolve(keep), signal: AbortSignal.timeout(60_000) }).then(
    () => undefined,
    (error: Error) => error,
  );
  const there = await present(directory);
  const lost = [...kept].filter((key) => !there.has(key));
  assert.deepEqual(lost, [], `nothing that is named or used goes (${failure?.message ?? 'the run came to its end'})`);
  if (!lied && failure === undefined)
    assert.deepEqual(
      old.filter((key) => key.startsWith(BLOBS) && there.has(key) && !kept.has(key)),
      [],
      'the old images are no longer stored',
    );
  return failure === undefined;
}

test(
  `promise 13: pruning over S3 behind a gateway that lies, ${RUNS} times, removes nothing that is named or used`,
  { timeout: 3_600_000 },
  async (context) => {
    await using server = await startVersitygw();
    let left = RUNS;
    let whole = 0;
    await Promise.all(
      Array.from({ length: WORLDS }, async (_, index) => {
        await using world = await createWorld(server, index);
        while (left-- > 0) if (await runOnce(world)) whole++;
      }),
    );
    context.diagnostic(`${RUNS} runs, of which ${whole} came to their end`);
    assert.ok(whole > 0 && whole < RUNS, 'some runs come to their end, and some do not');
  },
);
