import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startDistribution } from './support/distribution.ts';
import { pushBlob, randomBytes, sha256 } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { until } from './support/until.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startVersitygw } from './support/versitygw.ts';

const MiB = 2 ** 20;

for (const kind of ['filesystem', 's3'] as const) {
  test(`promise 2: 24 clients on one cold blob, kept in ${kind}: one download, first bytes at once, and no client waits for a slower one`, async (t) => {
    await using upstream = await startScriptedUpstream();
    await using own = await open(kind, { hub: { url: upstream.url, connections: 1 } });
    const bytes = randomBytes(`shared ${kind}`, 48 * MiB);
    const digest = upstream.addBlob(bytes);
    upstream.behave = ({ path }) => (path.includes('/blobs/') ? { latency: 30, rate: 10 * MiB } : {});
    const url = `${own.url}/v2/hub/a/b/blobs/${digest}`;

    const sent = () => upstream.blobBytes() / bytes.length;
    const early = Array.from({ length: 20 }, () => follow(url, bytes, { sent }));
    const slow = follow(url, bytes, { rate: 8_000_000 });
    const enough = new AbortController();
    const crawling = follow(url, bytes, { rate: 2_000_000, until: enough.signal });
    const leaving = follow(url, bytes, { stopAfter: MiB });
    await until(() => sent() > 0.4, 'the download is half way');
    const late = await follow(url, bytes, { sent });
    const all = [...(await Promise.all(early)), late];
    const fast = all.map(({ seconds }) => seconds);
    enough.abort();
    const crawled = (await crawling).size;
    await leaving;
    const slowest = await slow;
    const firsts = all.slice(0, -1).map(({ firstByte }) => firstByte);
    const copies = upstream.blobBytes() / bytes.length;

    show(t, 'copies that upstream sent', copies);
    show(t, "first byte, the last client's, s", Math.max(...firsts, slowest.firstByte));
    show(t, 'first byte of one that joins half way, s', late.firstByte);
    show(t, 'whole blob, the last of the fast, s', Math.max(...fast));
    show(t, 'whole blob, the one that reads 8 MB/s, s', slowest.seconds);
    assert.ok(copies <= 1.01);
    const sentBefore = Math.max(...all.slice(0, -1).map((client) => client.sentBefore));
    assert.ok(sentBefore < 0.5, `first bytes come at once: upstream had sent ${sentBefore} of the blob`);
    assert.ok(late.sentBefore < 0.9, `a late one waits for nothing: upstream had sent ${late.sentBefore} of the blob`);
    assert.ok(crawled < bytes.length / 2, `${crawled} bytes: the slowest reader delays no other`);

    const left = randomBytes(`left ${kind}`, 8 * MiB);
    const leftUrl = url.replace(digest, upstream.addBlob(left));
    await follow(leftUrl, left, { stopAfter: MiB });
    await until(
      async () => /downloads_running 0$/m.test(await (await fetch(`${own.admin}/metrics`)).text()),
      'the download goes on and ends',
    );
    upstream.behave = () => ({ status: 500 });
    await follow(leftUrl, left);
  });
}

test('promise 1: a cold blob takes hardly longer than from upstream itself', async (t) => {
  await using upstream = await startScriptedUpstream();
  await using own = await open('filesystem', { hub: { url: upstream.url, connections: 1 } });
  upstream.behave = () => ({ latency: 30, rate: 32 * MiB });
  const ratios: number[] = [];
  for (let round = 0; round < 3; round++) {
    const bytes = randomBytes(`ratio ${round}`, 32 * MiB);
    const digest = upstream.addBlob(bytes);
    const direct = await follow(`${upstream.url}/v2/a/b/blobs/${digest}`, bytes);
    const through = await follow(`${own.url}/v2/hub/a/b/blobs/${digest}`, bytes);
    ratios.push(through.seconds / direct.seconds);
  }
  show(t, 'cold, times the time of an upstream of 32 MiB/s itself', median(ratios));
  assert.ok(median(ratios) < 2, `${median(ratios)}`);
});

test('promise 1: a cold blob from an upstream as fast as the machine takes under five times as long', async (t) => {
  await using upstream = await startDistribution();
  await using own = await open('filesystem', { hub: { url: upstream.url } });
  const ratios: number[] = [];
  for (let round = 0; round < 3; round++) {
    const bytes = randomBytes(`fast ${round}`, 64 * MiB);
    const blob = { digest: sha256(bytes), mediaType: 'application/octet-stream', size: bytes.length, bytes };
    await pushBlob(`${upstream.url}/v2/a/b`, blob);
    const direct = await follow(`${upstream.url}/v2/a/b/blobs/${blob.digest}`, bytes);
    const through = await follow(`${own.url}/v2/hub/a/b/blobs/${blob.digest}`, bytes);
    ratios.push(through.seconds / direct.seconds);
  }
  show(t, 'cold, times the time of Distribution itself, on loopback', median(ratios));
  assert.ok(median(ratios) < 5, `${median(ratios)}`);
});

/** A registry over the store, with its dependencies. */
async function open(
  kind: 'filesystem' | 's3',
  upstreams: Record<string, unknown>,
): Promise<Pick<ServingProgram, 'url' | 'admin'> & AsyncDisposable> {
  const resources = new AsyncDisposableStack();
  const { path } = resources.use(await temporaryDirectory());
  let storage: Record<string, unknown> = { filesystem: { directory: join(path, 'data') } };
  if (kind === 's3') {
    const { endpoint, bucket, region, accessKeyId, secretAccessKey } = resources.use(await startVersitygw());
    storage = { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } };
  }
  const { url, admin } = resources.use(await startRegistry({ storage, local: { directory: join(path, 'local') }, upstreams }));
  return { url, admin, [Symbol.asyncDispose]: () => resources.disposeAsync() };
}

interface FollowOptions {
  /** Bytes a second. */
  rate?: number;
  /** Bytes after which it leaves. */
  stopAfter?: number;
  until?: AbortSignal;
  /** The bytes of the blob that upstream has sent. */
  sent?: () => number;
}

/** Reads a blob and compares each byte; in seconds. @throws AssertionError: a byte is wrong, or
 *  missing */
async function follow(url: string, bytes: Buffer, options: FollowOptions = {}) {
  const started = performance.now();
  const since = () => (performance.now() - started) / 1000;
  const { body } = await fetch(url);
  let size = 0;
  let firstByte = 0;
  let sentBefore = 0;
  for await (const chunk of body ?? []) {
    if (size === 0) [firstByte, sentBefore] = [since(), options.sent?.() ?? 0];
    const { length } = chunk as Uint8Array;
    assert.ok(bytes.subarray(size, size + length).equals(chunk as Uint8Array), `wrong bytes after ${size}`);
    size += length;
    if (size >= (options.stopAfter ?? Infinity) || options.until?.aborted === true)
      return { size, firstByte, sentBefore, seconds: since() };
    if (options.rate !== undefined) await delay(Math.max(0, (size / options.rate - since()) * 1000));
  }
  assert.equal(size, bytes.length);
  return { size, firstByte, sentBefore, seconds: since() };
}

function show(t: TestContext, what: string, figure: number): void {
  t.diagnostic(`${what}: ${figure.toFixed(3)}`);
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}
