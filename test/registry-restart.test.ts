import assert from 'node:assert/strict';
import { open, readdir, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { randomBytes, sha256 } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { startVersitygw } from './support/versitygw.ts';

const MiB = 2 ** 20;
const SIZE = 96 * MiB;
/** How much upstream may send in total, as a multiple of the blob's size. */
const MAX_COPIES = 1.15;

const bytes = randomBytes('restart', SIZE);

function configurationOf(directory: string, url: string, more: Record<string, unknown> = {}) {
  return { storage: { filesystem: { directory } }, upstreams: { hub: { url, ...more } } };
}

async function spoolFiles(directory: string): Promise<string[]> {
  return (await readdir(directory, { recursive: true })).filter((name) => /\.(?:spool|progress|new)$/.test(name));
}

test('promise 20: a registry that is killed at two thirds of a blob continues its download after the restart', async (context) => {
  await using upstream = await startScriptedUpstream();
  await using directory = await temporaryDirectory();
  const digest = upstream.addBlob(bytes);
  upstream.behave = () => ({ rate: 3 * MiB });
  const configuration = configurationOf(directory.path, upstream.url);
  const path = `/v2/hub/team/app/blobs/${digest}`;
  {
    await using killed = await startRegistry(configuration);
    const cut = fetch(killed.url + path).then((response) => response.arrayBuffer());
    cut.catch(() => undefined);
    await until(() => upstream.blobBytes() > (2 / 3) * SIZE, 'two thirds have been sent');
    await killed.stop('SIGKILL');
    await assert.rejects(cut);
  }
  await using registry = await startRegistry(configuration);
  const response = await fetch(registry.url + path);
  assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest);
  const copies = upstream.blobBytes() / SIZE;
  context.diagnostic(`upstream has sent ${copies.toFixed(3)} copies`);
  assert.ok(copies <= MAX_COPIES);
  await until(async () => (await spoolFiles(directory.path)).length === 0, 'nothing is left of the download');
});

test('promise 20: a download that failed is continued by the next pull', async (context) => {
  await using upstream = await startScriptedUpstream();
  await using directory = await temporaryDirectory();
  const digest = upstream.addBlob(bytes);
  await using registry = await startRegistry(configurationOf(directory.path, upstream.url, { connections: 1 }));
  const path = `/v2/hub/team/app/blobs/${digest}`;
  upstream.behave = ({ path: asked, range }) =>
    !asked.includes('/blobs/') ? {} : range === undefined ? { cutAfter: SIZE / 2 } : { status: 503 };
  await assert.rejects(fetch(registry.url + path).then((response) => response.arrayBuffer()));
  assert.ok((await spoolFiles(directory.path)).length > 0);
  upstream.behave = () => ({});
  const response = await fetch(registry.url + path);
  assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest);
  const copies = upstream.blobBytes() / SIZE;
  context.diagnostic(`upstream has sent ${copies.toFixed(3)} copies`);
  assert.ok(copies <= MAX_COPIES);
});

test('promise 20: a registry that is stopped in the middle of a blob leaves what it has to the next one', async () => {
  await using upstream = await startScriptedUpstream();
  await using directory = await temporaryDirectory();
  const digest = upstream.addBlob(bytes);
  const configuration = configurationOf(directory.path, upstream.url, { connections: 1 });
  const path = `/v2/hub/team/app/blobs/${digest}`;
  upstream.behave = ({ range }) => (range === undefined ? { silentAfter: SIZE / 2 } : { silent: true });
  {
    await using stopped = await startRegistry(configuration);
    const cut = fetch(stopped.url + path).then((response) => response.arrayBuffer());
    cut.catch(() => undefined);
    await until(() => upstream.blobBytes() >= SIZE / 2, 'half has been sent');
    await stopped.stop('SIGTERM');
    await assert.rejects(cut);
  }
  upstream.behave = () => ({});
  await using registry = await startRegistry(configuration);
  const response = await fetch(registry.url + path);
  assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest);
  assert.ok(upstream.blobBytes() / SIZE <= MAX_COPIES);
});

test('promise 20: a truncated or corrupt spool file never reaches a client whole, and the next pull is correct', async () => {
  await using upstream = await startScriptedUpstream();
  const digest = upstream.addBlob(bytes);
  const path = `/v2/hub/team/app/blobs/${digest}`;
  const damages: Record<string, (file: FileHandle) => Promise<unknown>> = {
    cut: (file) => file.truncate(SIZE / 8),
    flipped: (file) => file.write(Buffer.from([bytes[SIZE / 8]! ^ 1]), 0, 1, SIZE / 8),
  };
  for (const [name, damage] of Object.entries(damages)) {
    await using directory = await temporaryDirectory();
    const configuration = configurationOf(directory.path, upstream.url, { connections: 1 });
    upstream.behave = ({ range }) => (range === undefined ? { silentAfter: SIZE / 2 } : { silent: true });
    const before = upstream.blobBytes();
    {
      await using killed = await startRegistry(configuration);
      const cut = fetch(killed.url + path).then((response) => response.arrayBuffer());
      cut.catch(() => undefined);
      await until(() => upstream.blobBytes() - before >= SIZE / 2, 'half has been sent');
      await until(async () => (await spoolFiles(directory.path)).some((file) => file.endsWith('.progress')), 'it is recorded');
      await killed.stop('SIGKILL');
      await assert.rejects(cut);
    }
    const spool = (await spoolFiles(directory.path)).find((file) => file.endsWith('.spool')) ?? assert.fail();
    const file = await open(join(directory.path, spool), 'r+');
    await damage(file);
    await file.close();
    upstream.behave = () => ({});
    await using registry = await startRegistry(configuration);
    const pull = async () => sha256(Buffer.from(await (await fetch(registry.url + path)).arrayBuffer()));
    const first = await pull().catch(() => 'an error');
    assert.ok([digest, 'an error'].includes(first), name);
    await until(async () => (await pull().catch(() => undefined)) === digest, `${name}: the next pull is right`);
  }
});

test('promise 20: what was left of a blob is no proof that a repository may serve it, and stays for those that may', async () => {
  await using upstream = await startScriptedUpstream();
  await using directory = await temporaryDirectory();
  const digest = upstream.addBlob(bytes);
  await using registry = await startRegistry(configurationOf(directory.path, upstream.url, { connections: 1 }));
  upstream.behave = ({ path, range }) =>
    path.includes('/stranger/') ? { status: 404 } : range === undefined ? { cutAfter: SIZE / 2 } : { status: 503 };
  await assert.rejects(fetch(`${registry.url}/v2/hub/team/app/blobs/${digest}`).then((response) => response.arrayBuffer()));
  for (const range of [undefined, 'bytes=0-9', `bytes=${SIZE / 4}-`]) {
    const answer = await fetch(`${registry.url}/v2/hub/stranger/app/blobs/${digest}`, range === undefined ? {} : { headers: { range } });
    assert.equal(answer.status, 404, String(range));
    await answer.body?.cancel();
  }
  upstream.behave = () => ({});
  const before = upstream.blobBytes();
  const response = await fetch(`${registry.url}/v2/hub/team/app/blobs/${digest}`);
  assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest);
  assert.ok(upstream.blobBytes() - before < 0.75 * SIZE, 'the second half is requested');
});

test('promise 20: when a replica over S3 is killed at two thirds of a blob, another one continues its download', async (context) => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using one = await temporaryDirectory();
  await using two = await temporaryDirectory();
  const digest = upstream.addBlob(bytes);
  upstream.behave = () => ({ rate: 3 * MiB });
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
  const start = (directory: string) =>
    startRegistry({
      storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
      local: { directory },
      upstreams: { hub: { url: upstream.url, connections: 1 } },
    });
  const path = `/v2/hub/team/app/blobs/${digest}`;
  {
    await using killed = await start(one.path);
    const cut = fetch(killed.url + path).then((response) => response.arrayBuffer());
    cut.catch(() => undefined);
    await until(() => upstream.blobBytes() > (2 / 3) * SIZE, 'two thirds have been sent');
    await killed.stop('SIGKILL');
    await assert.rejects(cut);
  }
  await using registry = await start(two.path);
  const response = await fetch(registry.url + path);
  assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest);
  const copies = upstream.blobBytes() / SIZE;
  context.diagnostic(`upstream has sent ${copies.toFixed(3)} copies`);
  assert.ok(copies <= MAX_COPIES);
  const objects = () => readdir(join(s3.directory, 'v1'), { recursive: true });
  await until(async () => (await objects()).some((name) => name.endsWith(digest.slice(7))), 'the blob is in S3');
  await until(async () => !(await objects()).some((name) => name.startsWith('parts/')), 'its parts are removed');
});
