import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { randomBytes } from '../../test/support/image.ts';
import { captureLog } from '../../test/support/log.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { until } from '../../test/support/until.ts';
import { digestOf } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { ByteRange } from '../oci/range.ts';
import { parseRepository } from '../oci/reference.ts';
import type { Blob } from '../oci/registry.ts';
import { createBlobParts } from '../store/blob-parts.ts';
import { blobKey, PARTS } from '../store/keys.ts';
import type { UploadStore } from '../store/upload-store.ts';
import { keysOf } from '../testing/store-suite.ts';
import { uploadMemory } from '../testing/upload-memory.ts';
import { createDownloads } from './downloads.ts';

const MiB = 2 ** 20;
const BYTES = randomBytes('parts', 24 * MiB);
const DIGEST = digestOf(BYTES);
const { signal } = new AbortController();

/** Downloads of one replica, which has a disk of its own. */
async function replica(store: UploadStore) {
  const directory = await temporaryDirectory();
  const { log } = await captureLog();
  const outcomes: string[] = [];
  const downloads = await createDownloads({
    spoolDirectory: directory.path,
    keeper: {
      reserve: () => ({ grow: () => true, release: () => undefined }),
      keep: () => Promise.resolve(),
      parts: createBlobParts(store),
    },
    log,
    metrics: { downloadStarted: () => undefined, downloadEnded: (_, outcome) => void outcomes.push(outcome) },
  });
  return { downloads, outcomes, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

/** `pause` is called before each piece of 1 MiB with its position. */
function upstream(pause: (position: number) => Promise<void> = () => Promise.resolve()) {
  const counts = { sent: 0 };
  function open(range: ByteRange | undefined): Promise<Blob> {
    const [from, to] = [range?.start ?? 0, range?.end ?? BYTES.length - 1];
    async function* body() {
      for (let at = from; at <= to; at += MiB) {
        await pause(at);
        const chunk = Buffer.from(BYTES.subarray(at, Math.min(at + MiB, to + 1)));
        counts.sent += chunk.length;
        yield chunk;
      }
    }
    return Promise.resolve({ digest: DIGEST, size: BYTES.length, range: range && { start: from, end: to }, body: body() });
  }
  return { counts, open };
}

function request(open: (range: ByteRange | undefined) => Promise<Blob>) {
  return {
    sources: [{ name: 'upstream' as const, open }],
    repository: parseRepository('hub/library/demo'),
    upstream: 'hub',
    connections: 1,
    expectedSize: undefined,
    start: 0,
    isLastResort: false,
    continues: true,
  };
}

async function hashOf({ body }: Pick<Blob, 'body'>): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of body) hash.update(chunk);
  return `sha256:${hash.digest('hex')}`;
}

/** Pauses at 16 MiB until the download has run long enough to be stored in parts. */
async function slow(position: number): Promise<void> {
  if (position === 16 * MiB) await delay(5500);
}

test('promise 20: what takes long is stored in parts, from which another replica continues', async () => {
  const store = uploadMemory();
  await using one = await replica(store);
  const first = upstream(async (position) => {
    await slow(position);
    if (position === 20 * MiB) throw new OciError('BLOB_UNKNOWN', 'gone', { origin: 'upstream' });
  });
  const cut = one.downloads.start(DIGEST, request(first.open));
  await assert.rejects(cut.read(undefined, signal).then((blob) => hashOf(blob ?? assert.fail())));
  await one.downloads.close(signal);
  assert.ok((await keysOf(store, PARTS)).length >= 3, 'three parts of 5 MiB are in the storage');

  await using two = await replica(store);
  const second = upstream();
  const continued = two.downloads.start(DIGEST, request(second.open));
  assert.equal(await hashOf((await continued.read(undefined, signal)) ?? assert.fail()), DIGEST);
  assert.ok(second.counts.sent <= 10 * MiB, `upstream has sent ${second.counts.sent} bytes again`);
  await until(async () => (await keysOf(store, PARTS)).length === 0, 'the parts are removed');
});

test('a blob whose parts are in the storage is made of them instead of being uploaded again', async () => {
  const store = uploadMemory();
  await using one = await replica(store);
  const download = one.downloads.start(DIGEST, request(upstream(slow).open));
  assert.equal(await hashOf((await download.read(undefined, signal)) ?? assert.fail()), DIGEST);
  await one.downloads.close(signal);
  assert.equal((await store.stat(blobKey(DIGEST), { signal }))?.size, BYTES.length);
  assert.deepEqual(one.outcomes, ['stored']);
  await until(async () => (await keysOf(store, PARTS)).length === 0, 'the parts are removed');
});

test('a blob that comes quickly leaves nothing in the storage but itself', async () => {
  const written: string[] = [];
  const store = uploadMemory((operation, key) => {
    if (operation === 'write') written.push(key);
  });
  await using one = await replica(store);
  const download = one.downloads.start(DIGEST, request(upstream().open));
  assert.equal(await hashOf((await download.read(undefined, signal)) ?? assert.fail()), DIGEST);
  await one.downloads.close(signal);
  assert.deepEqual(written, []);
});
