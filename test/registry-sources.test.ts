import assert from 'node:assert/strict';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { makeImage, sha256 } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { read } from './support/reading.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

// Where the bytes of a blob come from when a source refuses ranges, sends something else, or has
// been damaged on disk.

const MiB = 2 ** 20;
const resources = new AsyncDisposableStack();
let upstream: ScriptedUpstream;
let mirror: ScriptedUpstream;
let registry: ServingProgram;
let directory: string;

before(async () => {
  directory = resources.use(await temporaryDirectory()).path;
  upstream = resources.use(await startScriptedUpstream());
  mirror = resources.use(await startScriptedUpstream());
  const credentials = [{ repositories: 'team/', username: 'robot', password: 'secret' }];
  registry = resources.use(
    await startRegistry({
      storage: { filesystem: { directory } },
      upstreams: {
        hub: { url: upstream.url },
        corp: { url: upstream.url, hosts: ['corp.example'], credentials },
        mirrored: { url: upstream.url, hosts: ['mirrored.example'], mirrors: [{ url: mirror.url }] },
      },
    }),
  );
});
after(() => resources.disposeAsync());

function newBlob(seed: string, size: number) {
  const bytes = Buffer.alloc(size, `${seed} ${Math.random()}`);
  const digest = upstream.addBlob(bytes);
  const path = (name = 'hub/a/b') => `${registry.url}/v2/${name}/blobs/${digest}`;
  const asked = () => upstream.requests.filter((request) => request.path.includes(digest));
  const hex = digest.slice('sha256:'.length);
  return { bytes, digest, path, asked, file: join(directory, `v1/blobs/sha256/${hex.slice(0, 2)}/${hex}`) };
}

test('promise 6: additional connections that upstream refuses do no harm: the blob arrives over the working connection', async () => {
  // Artifactory refuses ranges of containerd 2.1 by 400, some CDNs by 403; a registry that limits
  // connections answers 429 or 503.
  for (const status of [400, 403, 416, 429, 501, 503]) {
    upstream.behave = ({ range }) => (range === undefined ? { rate: 24 * MiB } : { status });
    const { digest, path, asked } = newBlob(`helpers ${status}`, 24 * MiB);
    assert.equal((await read(path())).digest, digest, `${status}`);
    const copies = asked().reduce((sum, { bytes }) => sum + bytes, 0) / (24 * MiB);
    assert.ok(copies < 1.5 && asked().length <= 4, `${status}: ${asked().length} requests, ${copies.toFixed(2)} copies`);
  }
});

test('promise 5: a range of a cold blob is cut out of the whole where ranges are refused', async () => {
  for (const status of [400, 403, 416, 501]) {
    upstream.behave = ({ range }) => (range === undefined ? {} : { status });
    const { bytes, path } = newBlob(`cold range ${status}`, 4 * MiB);
    const part = await read(path(), { range: 'bytes=1000000-1999999' });
    assert.deepEqual([part.status, part.digest], [206, sha256(bytes.subarray(1_000_000, 2_000_000))], `${status}`);
  }
});

test('promise 3: a mirror that answers with a page to everything fails no pull', async () => {
  upstream.behave = () => ({});
  mirror.behave = () => ({ body: Buffer.from('<!doctype html><title>For sale</title>'), headers: { 'content-type': 'text/html' } });
  const image = makeImage({ architectures: ['amd64'], layers: [300_000, 2000], seed: 'page' });
  upstream.add('a/page', '1', image);
  const manifest = await fetch(`${registry.url}/v2/mirrored/a/page/manifests/1`);
  assert.equal(manifest.status, 200);
  for (const { digest } of image.platforms[0]?.layers ?? assert.fail()) {
    assert.equal((await read(`${registry.url}/v2/mirrored/a/page/blobs/${digest}`)).digest, digest);
  }
});

test('promise 3: wrong bytes of a mirror are replaced for a reader that has had no byte yet', async () => {
  upstream.behave = () => ({});
  const { bytes, digest, path } = newBlob('wrong', 60_000);
  mirror.behave = () => ({ body: Buffer.alloc(bytes.length, 7) });
  const readers = await Promise.all(Array.from({ length: 4 }, () => read(path('mirrored/a/b'))));
  for (const reader of readers) assert.equal(reader.digest, digest);
});

test('promise 12: a mirror that confirms everything does not prove access to a private blob', async () => {
  upstream.behave = () => ({});
  const { digest, path } = newBlob('private', 200_000);
  assert.equal((await read(path('corp/team/secret'))).digest, digest);
  upstream.behave = ({ path }) => (path.includes('/a/public/') ? { status: 404 } : {});
  mirror.behave = () => ({ body: Buffer.from('<html>For sale</html>'), headers: { 'content-type': 'text/html' } });
  for (const method of ['GET', 'HEAD']) {
    const response = await fetch(path('mirrored/a/public'), { method });
    assert.notEqual(response.status, 200);
    await response.arrayBuffer();
  }
});

test('promise 12: where upstream refuses HEAD of blobs, GET proves which blobs a repository has', async () => {
  upstream.behave = ({ method, path }) => (method === 'HEAD' && path.includes('/blobs/') ? { status: 401 } : {});
  const image = makeImage({ architectures: ['amd64'], layers: [200_000], seed: 'shared' });
  const [layer] = image.platforms[0]?.layers ?? [];
  for (const name of ['a/one', 'a/two']) {
    upstream.add(name, '1', image);
    assert.equal((await fetch(`${registry.url}/v2/hub/${name}/manifests/1`)).status, 200);
    assert.equal((await fetch(`${registry.url}/v2/hub/${name}/manifests/${image.platforms[0]?.manifest.digest}`)).status, 200);
    assert.equal((await read(`${registry.url}/v2/hub/${name}/blobs/${layer?.digest}`)).digest, layer?.digest, name);
  }
});

test('promise 12: public layers that a repository shares with others are served while its upstream is away', async () => {
  upstream.behave = () => ({});
  const image = makeImage({ architectures: ['amd64'], layers: [200_000], seed: 'shared public' });
  const manifest = image.platforms[0]?.manifest.digest ?? '';
  const [layer] = image.platforms[0]?.layers ?? [];
  for (const name of ['a/debian', 'a/python']) {
    upstream.add(name, '1', image);
    for (const reference of ['1', manifest])
      assert.equal((await fetch(`${registry.url}/v2/hub/${name}/manifests/${reference}`)).status, 200);
    // The node that pulls a/python has the layers already.
    if (name === 'a/debian') assert.equal((await read(`${registry.url}/v2/hub/${name}/blobs/${layer?.digest}`)).digest, layer?.digest);
  }
  upstream.behave = () => ({ status: 503 });
  assert.equal((await read(`${registry.url}/v2/hub/a/python/blobs/${layer?.digest}`)).digest, layer?.digest);
  assert.notEqual((await read(`${registry.url}/v2/hub/a/ruby/blobs/${layer?.digest}`)).status, 200, 'no manifest of it names the layer');
});

test('promise 3: a file that was damaged on disk is noticed when it is served, and fetched again', async () => {
  upstream.behave = () => ({});
  for (const [how, size, damage] of [
    ['a flipped byte', 300_000, (file: string, bytes: Buffer) => writeFileSync(file, flip(bytes))],
    ['half of it', 300_000, (file: string) => truncateSync(file, 150_000)],
    ['a flipped byte of a large one', 3 * MiB, (file: string, bytes: Buffer) => writeFileSync(file, flip(bytes))],
  ] as const) {
    const { digest, bytes, path, file } = newBlob(how, size);
    assert.equal((await read(path())).digest, digest);
    await until(() => existsEqual(file, bytes), 'it is stored');
    damage(file, bytes);
    const first = await read(path()).catch(() => undefined); // a large one is cut: its beginning is out already
    if (first !== undefined) assert.equal(first.digest, digest, how);
    assert.equal((await read(path())).digest, digest, how);
    const part = await read(path(), { range: 'bytes=1000-1999' });
    assert.equal(part.digest, sha256(bytes.subarray(1000, 2000)), how);
  }
});

test('promise 13: a pull by HEAD alone, as kubelets do with imagePullPolicy Always, is a use of the image', async () => {
  upstream.behave = () => ({});
  upstream.add('a/head', '1', makeImage({ architectures: ['amd64'], seed: 'head' }));
  const head = await fetch(`${registry.url}/v2/hub/a/head/manifests/1`, { method: 'HEAD' });
  const day = new Date().toISOString().slice(0, 10);
  const used = join(directory, 'v1/used', day, 'hub/a/head', head.headers.get('docker-content-digest') ?? '');
  await until(() => existsEqual(used, Buffer.alloc(0)), 'it is recorded');
});

function flip(bytes: Buffer): Buffer {
  const damaged = Buffer.from(bytes);
  damaged[bytes.length >> 1] = (damaged[bytes.length >> 1] ?? 0) ^ 1;
  return damaged;
}

function existsEqual(file: string, bytes: Buffer): boolean {
  try {
    return readFileSync(file).equals(bytes);
  } catch {
    return false;
  }
}
