import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { makeImage, randomBytes, sha256 } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { read } from './support/reading.ts';
import { startScriptedUpstream, type Behaviour, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';

const MiB = 1024 * 1024;

async function start(upstream: ScriptedUpstream, extra: { upstream?: Record<string, unknown>; cache?: Record<string, unknown> } = {}) {
  const temporary = await temporaryDirectory();
  const registry = await startRegistry({
    storage: { filesystem: { directory: temporary.path } },
    cache: { tagTtl: '1s', negativeTtl: '1s', ...extra.cache },
    upstreams: { hub: { url: upstream.url, ...extra.upstream }, other: { url: upstream.url, hosts: ['other.example'], tagTtl: '1h' } },
  });
  return {
    url: registry.url,
    registry,
    directory: temporary.path,
    async [Symbol.asyncDispose]() {
      await registry[Symbol.asyncDispose]();
      await temporary[Symbol.asyncDispose]();
    },
  };
}

async function storedBlobs(directory: string): Promise<string[]> {
  const files = await readdir(join(directory, 'v1'), { recursive: true, withFileTypes: true }).catch(() => []);
  return files.filter((file) => file.isFile() && file.parentPath.includes('/blobs/')).map((file) => file.name);
}

for (const connections of [1, 4]) {
  test(`promise 5: overlapping ranges of a cold blob are right and downloaded once, over ${connections} connections`, async (t) => {
    await using upstream = await startScriptedUpstream();
    // Bytes in the sockets are lost when a request is cut, which are more if the machine stalls
    // while upstream sends.
    const rate = (connections === 1 ? 32 : 8) * MiB;
    const bytes = randomBytes('ranges', 64 * MiB);
    const digest = upstream.addBlob(bytes);
    upstream.behave = () => ({ latency: 30, rate });
    await using own = await start(upstream, { upstream: { connections } });
    const url = `${own.url}/v2/hub/a/b/blobs/${digest}`;
    const starts = [0, 16, 32, 48].map((start) => start * MiB);
    const parts = await Promise.all(starts.map((start) => read(url, { range: `bytes=${start}-` })));
    parts.forEach((part, index) => {
      assert.equal(part.status, 206);
      assert.equal(part.digest, sha256(bytes.subarray(starts[index])));
    });
    const copies = upstream.blobBytes() / bytes.length;
    t.diagnostic(`${copies.toFixed(3)} copies; headers of the last after ${Math.max(...parts.map(({ headers }) => headers)).toFixed(3)} s`);
    assert.ok(copies <= 1.1, `${copies} copies`);
  });
}

test('promise 6: several connections share a blob whose upstream throttles each of them', async (t) => {
  await using upstream = await startScriptedUpstream();
  const bytes = randomBytes('parallel', 16 * MiB);
  const digest = upstream.addBlob(bytes);
  upstream.behave = () => ({ rate: MiB });
  await using own = await start(upstream);
  const got = await read(`${own.url}/v2/hub/a/b/blobs/${digest}`);
  assert.equal(got.digest, digest);
  const largest = Math.max(...upstream.requests.map((request) => request.bytes)) / bytes.length;
  t.diagnostic(`${got.seconds.toFixed(1)} s instead of 16; one connection brought at most ${largest.toFixed(2)} of the blob`);
  assert.ok(largest < 0.8);
  assert.ok(upstream.blobBytes() <= 1.1 * bytes.length, `${upstream.blobBytes() / bytes.length} copies`);
});

for (const size of [10_000, 4 * MiB]) {
  test(`promise 3: a corrupt blob of ${size} bytes never reaches a client whole and is never kept, by ranges neither`, async () => {
    await using upstream = await startScriptedUpstream();
    const bytes = randomBytes('corrupt', size);
    const digest = upstream.addBlob(bytes);
    const wrong = Buffer.from(bytes);
    wrong[1000] = (wrong[1000] ?? 0) ^ 1;
    upstream.behave = () => ({ body: wrong });
    await using own = await start(upstream);
    const url = `${own.url}/v2/hub/a/b/blobs/${digest}`;
    for (const range of [undefined, `bytes=${Math.floor(size / 2)}-`, 'bytes=-100']) {
      const got = await read(url, range === undefined ? {} : { range }).catch(() => undefined);
      assert.ok(got === undefined || got.status >= 500, `${range}: ${got?.status}`);
    }
    assert.deepEqual(await storedBlobs(own.directory), []);
    upstream.behave = () => ({});
    assert.equal((await read(url)).digest, digest);
  });
}

// Each has servers of its own, and mostly waits.
describe('an upstream that fails', { concurrency: 3 }, () => {
  test('promise 4: a connection that is cut three times and silent once still yields the whole blob', async (t) => {
    await using upstream = await startScriptedUpstream();
    const bytes = randomBytes('cut', 24 * MiB);
    const digest = upstream.addBlob(bytes);
    let answers = 0;
    upstream.behave = () => {
      answers++;
      if (answers <= 3) return { cutAfter: 3 * MiB };
      return answers === 4 ? { silentAfter: 2 * MiB } : {};
    };
    await using own = await start(upstream, { upstream: { connections: 1 } });
    const got = await read(`${own.url}/v2/hub/a/b/blobs/${digest}`);
    assert.equal(got.digest, digest);
    const copies = upstream.blobBytes() / bytes.length;
    t.diagnostic(`${copies.toFixed(3)} copies, over ${answers} requests`);
    assert.ok(copies <= 1.1, `${copies} copies`);
  });

  test('promise 15: malformed answers of upstream become errors with a code and a message, and the process survives', async () => {
    await using upstream = await startScriptedUpstream();
    upstream.add('a/b', '1', makeImage({ architectures: ['amd64'] }));
    await using own = await start(upstream, { cache: { tagTtl: '0ms' } });
    const rows: { how: Behaviour; code: string }[] = [
      { how: { body: Buffer.from('<html>'), headers: { 'content-type': 'text/html' } }, code: 'UNAVAILABLE' },
      { how: { body: Buffer.alloc(5 * MiB, 32) }, code: 'MANIFEST_INVALID' },
      { how: { body: Buffer.from('{"schemaVersion":1}') }, code: 'MANIFEST_INVALID' },
      { how: { headers: { 'docker-content-digest': `sha256:${'0'.repeat(64)}` } }, code: 'MANIFEST_INVALID' },
      { how: { status: 500 }, code: 'UNAVAILABLE' },
      { how: { status: 401 }, code: 'UNAUTHORIZED' },
      { how: { status: 403 }, code: 'DENIED' },
      { how: { status: 404 }, code: 'MANIFEST_UNKNOWN' },
      { how: { status: 404, body: Buffer.from('404 page not found'), headers: { 'content-type': 'text/plain' } }, code: 'UNAVAILABLE' },
      { how: { status: 451 }, code: 'DENIED' },
      { how: { status: 302, headers: { location: 'http://127.0.0.1:1/' } }, code: 'UNAVAILABLE' },
      { how: { status: 302, headers: { location: '/v2/a/b/manifests/1' } }, code: 'UNAVAILABLE' },
      { how: { status: 429, headers: { 'retry-after': '1' } }, code: 'TOOMANYREQUESTS' },
    ];
    for (const [index, { how, code }] of rows.entries()) {
      upstream.add('a/b', `t${index}`, makeImage({ architectures: ['amd64'] }));
      upstream.behave = () => how;
      const response = await fetch(`${own.url}/v2/hub/a/b/manifests/t${index}`);
      const text = await response.text();
      assert.ok(response.status >= 400, JSON.stringify(how).slice(0, 200));
      const { errors } = JSON.parse(text) as { errors: { code: string; message: string }[] };
      assert.equal(errors[0]?.code, code, `${JSON.stringify(how).slice(0, 200)} gave ${text}`);
      assert.ok((errors[0]?.message.length ?? 0) > 10);
    }
    upstream.behave = () => ({});
    assert.equal((await fetch(`${own.url}/v2/hub/a/b/manifests/1`)).status, 200);
  });

  test('promise 8: a tag is looked up once per tagTtl, and the cached manifest is served while upstream cannot answer', async (t) => {
    await using upstream = await startScriptedUpstream();
    const [first, second] = [makeImage({ architectures: ['amd64'], seed: 'one' }), makeImage({ architectures: ['amd64'], seed: 'two' })];
    upstream.add('a/b', '1', first);
    await using own = await start(upstream, { cache: { tagTtl: '500ms' } });
    const url = `${own.url}/v2/hub/a/b/manifests/1`;
    const digest = async (at = url) => (await fetch(at)).headers.get('docker-content-digest');
    assert.equal(await digest(), first.root.digest);
    const unhurried = url.replace('/hub/', '/other/');
    assert.equal(await digest(unhurried), first.root.digest);
    const before = upstream.requests.length;
    for (let pull = 0; pull < 20; pull++) assert.equal(await digest(unhurried), first.root.digest);
    assert.equal(upstream.requests.length, before, 'no request within tagTtl');
    upstream.add('a/b', '1', second);
    await delay(600);
    assert.equal(await digest(), second.root.digest, 'a tag that moved is seen by the first pull after tagTtl');
    for (const how of [{ status: 401 }, { status: 403 }, { status: 429 }, { status: 500 }, { silent: true }]) {
      upstream.behave = () => how;
      await delay(600);
      const started = performance.now();
      assert.equal(await digest(), second.root.digest, JSON.stringify(how));
      const seconds = (performance.now() - started) / 1000;
      t.diagnostic(`the known one after ${seconds.toFixed(3)} s when upstream is like ${JSON.stringify(how)}`);
      assert.ok(seconds < 10);
    }
    upstream.behave = () => ({});
    upstream.remove('a/b', '1');
    await delay(600);
    assert.equal((await fetch(url)).status, 404, 'a deleted one is no longer served');
    assert.equal((await fetch(`${own.url}/v2/hub/a/b/manifests/${second.root.digest}`)).status, 200, 'its digest stays');
  });

  test("promise 12: a private repository's blob needs upstream's consent under every other name, also while it is being downloaded", async () => {
    await using upstream = await startScriptedUpstream();
    const digest = upstream.addBlob(randomBytes('private', 8 * MiB));
    upstream.behave = ({ path }) => (path.includes('/private/') ? { rate: 4 * MiB } : { status: 404 });
    await using own = await start(upstream);
    const running = read(`${own.url}/v2/hub/private/app/blobs/${digest}`);
    await delay(300);
    assert.equal((await fetch(`${own.url}/v2/hub/public/app/blobs/${digest}`)).status, 404, 'while its download runs');
    assert.equal((await running).digest, digest);
    for (const method of ['GET', 'HEAD']) {
      for (const repository of ['hub/public/app', 'other/private2/app']) {
        assert.equal((await fetch(`${own.url}/v2/${repository}/blobs/${digest}`, { method })).status, 404, `${method} ${repository}`);
      }
    }
    upstream.behave = () => ({});
    assert.equal(
      (await read(`${own.url}/v2/hub/public/app/blobs/${digest}`)).digest,
      digest,
      'when upstream says yes, what is known is served',
    );
    assert.ok(upstream.blobBytes() <= 1.1 * 8 * MiB);
  });

  test('promise 6: a blob without a length, and one whose upstream ignores ranges, are downloaded whole', async () => {
    await using upstream = await startScriptedUpstream();
    const bytes = randomBytes('plain', 6 * MiB);
    const digest = upstream.addBlob(bytes);
    const other = upstream.addBlob(bytes.subarray(1));
    await using own = await start(upstream);
    upstream.behave = () => ({ chunked: true });
    assert.equal((await read(`${own.url}/v2/hub/a/b/blobs/${digest}`)).digest, digest);
    upstream.behave = () => ({ ignoreRange: true });
    const got = await read(`${own.url}/v2/hub/a/b/blobs/${other}`, { range: 'bytes=1000000-' });
    assert.equal(got.digest, sha256(bytes.subarray(1_000_001)));
  });
});
