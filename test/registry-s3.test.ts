import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { randomBytes, sha256 } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { startVersitygw, type Versitygw } from './support/versitygw.ts';

const MiB = 1024 * 1024;

async function start(upstream: ScriptedUpstream, s3: Versitygw, local: string, extra: Record<string, unknown> = {}) {
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
  return startRegistry({
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey, ...extra } },
    local: { directory: local, maxSize: '64MiB' },
    upstreams: { hub: { url: upstream.url } },
  });
}

async function digestOf(url: string): Promise<string> {
  const response = await fetch(url);
  assert.equal(response.status, 200, url);
  return sha256(Buffer.from(await response.arrayBuffer()));
}

async function metric(admin: string, name: string): Promise<number> {
  const text = await (await fetch(`${admin}/metrics`)).text();
  return Number(new RegExp(`^kube_registry_${name}(?:\\{[^}]*\\})? ([0-9.]+)$`, 'm').exec(text)?.[1] ?? 0);
}

async function uploaded(admin: string): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if ((await metric(admin, 'downloads_running')) === 0 && (await metric(admin, 'upload_queue_blobs')) === 0) return;
    await delay(100);
  }
  assert.fail('everything is stored in the end');
}

test('promise 10: a blob in S3 is served by a registry that has never reached its upstream', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using one = await temporaryDirectory();
  await using two = await temporaryDirectory();
  const digest = upstream.addBlob(randomBytes('s3', 20 * MiB));
  {
    await using first = await start(upstream, s3, one.path);
    assert.equal(await digestOf(`${first.url}/v2/hub/a/b/blobs/${digest}`), digest);
    await uploaded(first.admin);
  }
  const before = upstream.requests.length;
  await using second = await start(upstream, s3, two.path);
  assert.equal(await digestOf(`${second.url}/v2/hub/a/b/blobs/${digest}`), digest);
  const part = await fetch(`${second.url}/v2/hub/a/b/blobs/${digest}`, { headers: { range: 'bytes=-7' } });
  assert.equal(part.status, 206);
  assert.equal((await part.arrayBuffer()).byteLength, 7);
  assert.equal(upstream.requests.length, before, 'upstream is not asked');
});

test('promise 11: no pull fails while S3 is down, and everything is stored once it is back', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using local = await temporaryDirectory();
  await using registry = await start(upstream, s3, local.path);
  await s3.stop();
  const digests = Array.from({ length: 12 }, (_, index) => upstream.addBlob(randomBytes(`away ${index}`, MiB)));
  for (const digest of digests) assert.equal(await digestOf(`${registry.url}/v2/hub/a/b/blobs/${digest}`), digest);
  for (const digest of digests) assert.equal(await digestOf(`${registry.url}/v2/hub/a/b/blobs/${digest}`), digest);
  assert.ok(upstream.blobBytes() <= 1.1 * 12 * MiB);
  assert.equal((await fetch(`${registry.admin}/readyz`)).status, 200, 'an outage of S3 does not empty the Service');
  await s3.start();
  await uploaded(registry.admin);
  await using other = await temporaryDirectory();
  await using second = await start(upstream, s3, other.path);
  const before = upstream.blobBytes();
  for (const digest of digests) assert.equal(await digestOf(`${second.url}/v2/hub/a/b/blobs/${digest}`), digest);
  assert.equal(upstream.blobBytes(), before, 'every byte comes from S3');
});

test('promise 14: uploads that a killed process still owed are made by the next one', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using local = await temporaryDirectory();
  const digest = upstream.addBlob(randomBytes('killed', 3 * MiB));
  {
    await using first = await start(upstream, s3, local.path);
    await s3.stop();
    assert.equal(await digestOf(`${first.url}/v2/hub/a/b/blobs/${digest}`), digest);
    await delay(500);
    await first.stop('SIGKILL');
  }
  await s3.start();
  await using second = await start(upstream, s3, local.path);
  await uploaded(second.admin);
  await using other = await temporaryDirectory();
  await using third = await start(upstream, s3, other.path);
  const before = upstream.blobBytes();
  assert.equal(await digestOf(`${third.url}/v2/hub/a/b/blobs/${digest}`), digest);
  assert.equal(upstream.blobBytes(), before);
});

test('promise 14: blobs that do not fit into the local tier are streamed through', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using local = await temporaryDirectory();
  await using registry = await start(upstream, s3, local.path);
  const digests = Array.from({ length: 8 }, (_, index) => upstream.addBlob(randomBytes(`large ${index}`, 16 * MiB)));
  const all = await Promise.all(digests.map((digest) => digestOf(`${registry.url}/v2/hub/a/b/blobs/${digest}`)));
  assert.deepEqual(all, digests);
});

test('promise 12: with redirect, only requests that may read a blob get its presigned URL', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using local = await temporaryDirectory();
  const digest = upstream.addBlob(randomBytes('redirect', 2 * MiB));
  await using registry = await start(upstream, s3, local.path, { redirect: { ttl: '1m' } });
  const url = `${registry.url}/v2/hub/a/b/blobs/${digest}`;
  assert.equal(await digestOf(url), digest);
  let location = '';
  const isRedirected = async (): Promise<boolean> => {
    const response = await fetch(url, { redirect: 'manual' });
    await response.body?.cancel();
    location = response.headers.get('location') ?? '';
    return response.status === 307;
  };
  await until(isRedirected, 'the blob is in S3');
  assert.ok(location.startsWith(s3.endpoint));
  assert.equal(await digestOf(url), digest);
  await s3.stop();
  const response = await fetch(url, { redirect: 'manual' });
  await response.body?.cancel();
  assert.equal(response.status, 200, 'while S3 is down no client is redirected to it');
  await s3.start();
  upstream.behave = () => ({ status: 404 });
  assert.equal((await fetch(`${registry.url}/v2/hub/other/b/blobs/${digest}`, { redirect: 'manual' })).status, 404);
});
