import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import type { Digest } from '../src/oci/digest.ts';
import { blobKey } from '../src/store/keys.ts';
import { startContainerd } from './support/containerd.ts';
import { makeImage, randomBytes } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { metric } from './support/replicas.ts';
import { until } from './support/until.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { startTap } from './support/tap.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startVersitygw } from './support/versitygw.ts';
import { toolPath } from './tools/tools.ts';

const run = promisify(execFile);
const MiB = 2 ** 20;

test('promise 11: with s3.redirect clients read blobs from S3 itself, and from the registry while S3 is down', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using front = await startTap(s3.endpoint);
  await using temporary = await temporaryDirectory();
  const image = makeImage({ architectures: ['amd64'], layers: [64 * 1024, 4 * MiB], gzip: true });
  upstream.add('library/demo', '1', image);
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
  await using registry = await startRegistry({
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey, redirect: { endpoint: front.url, ttl: '1m' } } },
    local: { directory: join(temporary.path, 'local') },
    upstreams: { dockerhub: { url: upstream.url } },
  });
  const crane = await toolPath('crane');
  const name = `${registry.host}/dockerhub/library/demo:1`;
  const contents = image.platforms.flatMap(({ config, layers }) => [config, ...layers]);
  async function pullWithCrane(round: string): Promise<void> {
    const layout = join(temporary.path, round);
    await run(crane, ['pull', '--insecure', '--format=oci', name, layout]);
    for (const { digest, bytes } of contents)
      assert.ok(bytes.equals(await readFile(join(layout, 'blobs', digest.replace(':', '/')))), `${round} ${digest}`);
  }
  async function pullWithContainerd(): Promise<void> {
    await using containerd = await startContainerd({ release: 'debian' });
    await containerd.ctr('images', 'pull', '--plain-http', name);
    assert.match(await containerd.ctr('images', 'ls'), new RegExp(image.root.digest));
  }
  const sent = () => metric(registry.admin, 'sent_bytes_total', 'dockerhub');
  const fromS3 = () =>
    contents.map(({ digest }) => front.requests.filter(({ method, path }) => method === 'GET' && path.endsWith(digest.slice(7))).length);

  await pullWithCrane('cold');
  await until(async () => {
    const answers = await Promise.all(
      contents.map(({ digest }) => fetch(`${registry.url}/v2/dockerhub/library/demo/blobs/${digest}`, { redirect: 'manual' })),
    );
    for (const { body } of answers) await body?.cancel();
    return answers.every(({ status }) => status === 307);
  }, 'all of it is in S3');
  assert.deepEqual(fromS3(), [0, 0, 0]);

  const before = await sent();
  await pullWithCrane('redirected');
  await pullWithContainerd();
  assert.deepEqual(fromS3(), [2, 2, 2], 'each client was sent to S3 for each blob');
  assert.ok((await sent()) - before < MiB, 'only manifests went through the registry');

  await s3.stop();
  await pullWithCrane('without S3');
  await pullWithContainerd();
  assert.deepEqual(fromS3(), [2, 2, 2]);
});

test('no client is redirected to an S3 that went down while upstream was checking access', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using temporary = await temporaryDirectory();
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
  await using registry = await startRegistry({
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey, redirect: {} } },
    local: { directory: temporary.path },
    upstreams: { hub: { url: upstream.url } },
  });
  upstream.behave = () => ({});
  const bytes = randomBytes('late proof', 200_000);
  const digest = upstream.addBlob(bytes);
  const ask = async (repository: string) => {
    const answer = await fetch(`${registry.url}/v2/hub/${repository}/blobs/${digest}`, { redirect: 'manual' });
    return { status: answer.status, body: Buffer.from(await answer.arrayBuffer()) };
  };
  await until(async () => (await ask('a/b')).status === 307, 'it is in S3');
  upstream.behave = () => ({ latency: 2000 });
  const answer = ask('c/d');
  await until(() => upstream.requests.some(({ path }) => path.includes('/c/d/')), 'upstream is asked for the proof');
  await s3.stop();
  const { status, body } = await answer;
  assert.equal(status, 200);
  assert.ok(body.equals(bytes));
});

test('promise 11: an object in S3 that was cut is neither redirected to nor served, and a pull replaces it', async () => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using temporary = await temporaryDirectory();
  const bytes = randomBytes('cut in S3', MiB);
  const digest = upstream.addBlob(bytes);
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
  const configuration = (replica: string) => ({
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey, redirect: {} } },
    local: { directory: join(temporary.path, replica) },
    upstreams: { hub: { url: upstream.url } },
  });
  const path = `/v2/hub/library/demo/blobs/${digest}`;
  const pull = async (url: string, headers: Record<string, string> = {}) => {
    const response = await fetch(url + path, { redirect: 'manual', headers });
    return { status: response.status, bytes: Buffer.from(await response.arrayBuffer()) };
  };
  const object = join(s3.directory, blobKey(digest as Digest));
  const length = async () => (await stat(object).catch(() => undefined))?.size;
  {
    await using first = await startRegistry(configuration('first'));
    assert.equal((await pull(first.url)).status, 200);
    await until(
      async () => (await length()) === bytes.length && (await metric(first.admin, 'upload_queue_blobs')) === 0,
      'S3 has the blob',
    );
    await first.stop();
  }
  for (const [replica, left] of [
    ['half', bytes.length / 2],
    ['empty', 0],
    ['range', 100],
  ] as const) {
    await truncate(object, left);
    await using registry = await startRegistry(configuration(replica));
    const headers = replica === 'range' ? { range: 'bytes=1000-1999' } : undefined;
    const got = await pull(registry.url, headers);
    assert.equal(got.status, headers === undefined ? 200 : 206, replica);
    assert.ok(got.bytes.equals(headers === undefined ? bytes : bytes.subarray(1000, 2000)), replica);
    await until(async () => (await length()) === bytes.length, 'the object is whole again');
    await registry.stop();
  }
});
