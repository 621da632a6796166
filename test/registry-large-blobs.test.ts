import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parseDigest } from '../src/oci/digest.ts';
import { blobKey, partsPrefix } from '../src/store/keys.ts';
import { randomBytes, sha256 } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { metric } from './support/replicas.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { startVersitygw, type Versitygw } from './support/versitygw.ts';

const MiB = 2 ** 20;
const SIZE = 96 * MiB;
/** Of the local tier: a third of the blob. */
const TIER = '32MiB';
/** Of all bytes of the blob, how many upstream may send altogether. */
const ONE_COPY = 1.05;
const CONTINUED = 1.15;

const bytes = randomBytes('large', SIZE);

function start(upstream: ScriptedUpstream, s3: Versitygw, local: string): Promise<ServingProgram> {
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
  return startRegistry({
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
    local: { directory: local, maxSize: TIER },
    upstreams: { hub: { url: upstream.url, connections: 1 } },
  });
}

const pathOf = (digest: string) => `/v2/hub/team/app/blobs/${digest}`;

/** Reads a response to its end, at `rate` bytes a second at most. */
async function read(url: string, { range, rate = Infinity }: { range?: string; rate?: number } = {}): Promise<Buffer> {
  const response = await fetch(url, range === undefined ? {} : { headers: { range } });
  assert.equal(response.status, range === undefined ? 200 : 206);
  const chunks: Uint8Array[] = [];
  const started = performance.now();
  let count = 0;
  for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
    chunks.push(chunk);
    count += chunk.length;
    await delay(Math.max(0, (1000 * count) / rate - (performance.now() - started)));
  }
  return Buffer.concat(chunks);
}

const digestAt = async (url: string, how: { rate?: number } = {}) => sha256(await read(url, how));

async function sizeInStorage(s3: Versitygw, digest: string): Promise<number | undefined> {
  return (await stat(join(s3.directory, blobKey(parseDigest(digest)))).catch(() => undefined))?.size;
}

const hasParts = (s3: Versitygw, digest: string) =>
  stat(join(s3.directory, partsPrefix(parseDigest(digest)))).then(
    () => true,
    () => false,
  );

async function stored(registry: ServingProgram, s3: Versitygw, digest: string): Promise<void> {
  await until(async () => (await sizeInStorage(s3, digest)) === SIZE, 'the blob is in the storage');
  await until(async () => (await metric(registry.admin, 'downloads_running')) === 0, 'the download has ended');
  await until(async () => !(await hasParts(s3, digest)), 'its parts are removed');
}

test('promise 19: a blob of three times the local tier comes once for all clients, is stored, and is served without upstream', async (context) => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using local = await temporaryDirectory();
  const digest = upstream.addBlob(bytes);
  {
    await using registry = await start(upstream, s3, local.path);
    upstream.behave = () => ({ rate: 24 * MiB });
    const url = registry.url + pathOf(digest);
    const fast = digestAt(url);
    const slow = digestAt(url, { rate: 8 * MiB }); // falls behind the window
    await until(() => upstream.blobBytes() > (2 / 3) * SIZE, 'two thirds have been sent');
    const late = digestAt(url);
    const from = 5 * MiB;
    const part = read(url, { range: `bytes=${from}-${from + 3 * MiB - 1}` });
    const end = read(url, { range: 'bytes=-1000' });
    assert.deepEqual(await Promise.all([fast, slow, late]), [digest, digest, digest]);
    assert.ok((await part).equals(bytes.subarray(from, from + 3 * MiB)));
    assert.ok((await end).equals(bytes.subarray(-1000)));
    await stored(registry, s3, digest);
    const copies = upstream.blobBytes() / SIZE;
    context.diagnostic(`upstream has sent ${copies.toFixed(3)} copies`);
    assert.ok(copies <= ONE_COPY);
    assert.ok((await metric(registry.admin, 'local_bytes')) <= 32 * MiB);
  }
  const before = upstream.blobBytes();
  upstream.behave = () => ({ status: 503 });
  await using other = await temporaryDirectory();
  await using registry = await start(upstream, s3, other.path);
  const url = registry.url + pathOf(digest);
  assert.deepEqual(await Promise.all([digestAt(url), digestAt(url)]), [digest, digest]);
  assert.ok((await read(url, { range: `bytes=${SIZE - 10}-` })).equals(bytes.subarray(-10)));
  assert.equal(upstream.blobBytes(), before);
});

test('promise 19: wrong bytes of a large blob reach no client as a whole, and nothing of them stays in the storage', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using local = await temporaryDirectory();
  const digest = upstream.addBlob(bytes);
  const wrong = Buffer.from(bytes);
  wrong[SIZE / 2]! ^= 1;
  upstream.behave = ({ path }) => (path.includes('/blobs/') ? { body: wrong } : {});
  await using registry = await start(upstream, s3, local.path);
  await assert.rejects(read(registry.url + pathOf(digest)));
  await until(async () => !(await hasParts(s3, digest)), 'its parts are removed');
  assert.equal(await sizeInStorage(s3, digest), undefined);
  upstream.behave = () => ({});
  assert.equal(await digestAt(registry.url + pathOf(digest)), digest);
  await stored(registry, s3, digest);
});

test('promise 19: a storage that is away while a large blob arrives fails no pull', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using local = await temporaryDirectory();
  const digest = upstream.addBlob(bytes);
  upstream.behave = () => ({ rate: 24 * MiB });
  await using registry = await start(upstream, s3, local.path);
  const pull = digestAt(registry.url + pathOf(digest));
  await until(() => upstream.blobBytes() > SIZE / 4, 'a quarter has been sent');
  await s3.stop();
  assert.equal(await pull, digest);
  await s3.start();
});

test('promise 20: a blob larger than the local tier whose registry is killed is continued by another one from the parts in the storage', async (context) => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using one = await temporaryDirectory();
  await using two = await temporaryDirectory();
  const digest = upstream.addBlob(bytes);
  {
    await using killed = await start(upstream, s3, one.path);
    upstream.behave = () => ({ rate: 16 * MiB });
    const cut = read(killed.url + pathOf(digest));
    cut.catch(() => undefined);
    await until(() => upstream.blobBytes() > (2 / 3) * SIZE, 'two thirds have been sent');
    await killed.stop('SIGKILL');
    await assert.rejects(cut);
  }
  await using registry = await start(upstream, s3, two.path);
  assert.equal(await digestAt(registry.url + pathOf(digest)), digest);
  const copies = upstream.blobBytes() / SIZE;
  context.diagnostic(`upstream has sent ${copies.toFixed(3)} copies`);
  assert.ok(copies <= CONTINUED);
  await stored(registry, s3, digest);
  const file = createHash('sha256').update(await read(registry.url + pathOf(digest)));
  assert.equal(`sha256:${file.digest('hex')}`, digest);
});
