import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { makeImage, randomBytes, sha256 } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { errorCode, read } from './support/reading.ts';
import { until } from './support/until.ts';
import { startScriptedUpstream, type Behaviour, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';

const MiB = 2 ** 20;

let upstream: ScriptedUpstream;
let mirror: ScriptedUpstream;
let registry: ServingProgram;
let directory: string;
const resources = new AsyncDisposableStack();

before(async () => {
  upstream = resources.use(await startScriptedUpstream());
  mirror = resources.use(await startScriptedUpstream());
  directory = resources.use(await temporaryDirectory()).path;
  registry = resources.use(
    await startRegistry({
      storage: { filesystem: { directory } },
      upstreams: {
        hub: { url: upstream.url },
        other: { url: upstream.url, hosts: ['other.example'] },
        mirrored: { url: upstream.url, hosts: ['mirrored.example'], mirrors: [{ url: mirror.url }] },
      },
    }),
  );
});
after(() => resources.disposeAsync());

function behave(how: (path: string) => Behaviour): void {
  upstream.behave = ({ path }) => how(path);
}

/** A blob that only upstream has, the URL to read it from, and the number and size of the requests
 *  to upstream. */
function newBlob(seed: string, size: number) {
  const bytes = randomBytes(seed, size);
  const digest = upstream.addBlob(bytes);
  const asked = () => upstream.requests.filter(({ path, method }) => method === 'GET' && path.endsWith(digest));
  return {
    bytes,
    digest,
    url: (repository = 'hub/a/b') => `${registry.url}/v2/${repository}/blobs/${digest}`,
    asked,
    copies: () => asked().reduce((sum, request) => sum + request.bytes, 0) / size,
  };
}

test('promise 1: the client has its headers although upstream has sent no byte of the body yet', async () => {
  const { bytes, url, asked } = newBlob('headers', MiB);
  let requests = 0;
  behave(() => (requests++ === 0 ? { silentAfter: 0 } : {})); // headers and then silence, for as long as the registry waits
  const response = await fetch(url());
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('content-length'), String(bytes.length));
  assert.equal(
    asked().reduce((sum, request) => sum + request.bytes, 0),
    0,
  );
  await response.body?.cancel();
});

for (const range of ['bytes=-100', 'bytes=0-0', 'bytes=0-99', 'bytes=100-199', 'bytes=3000000-', 'bytes=-99999999']) {
  test(`promise 5: a range of a cold blob is served at once, and the rest is downloaded too: ${range}`, async () => {
    behave(() => ({}));
    const { bytes, url, copies, asked } = newBlob(range, 4 * MiB);
    const response = await fetch(url(), { headers: { range } });
    const [, first = '', last = ''] = /^bytes=(\d*)-(\d*)$/.exec(range) ?? [];
    const start = first === '' ? Math.max(0, bytes.length - Number(last)) : Number(first);
    const end = first === '' || last === '' ? bytes.length - 1 : Number(last);
    assert.equal(response.status, 206);
    assert.equal(response.headers.get('content-range'), `bytes ${start}-${end}/${bytes.length}`);
    assert.ok(Buffer.from(await response.arrayBuffer()).equals(bytes.subarray(start, end + 1)));
    await until(() => copies() >= 1, 'the rest of it comes as well');
    assert.ok(copies() <= 1.1, `${copies()} copies`);
    for (const { range: sent } of asked()) assert.ok(sent === undefined || /^bytes=\d+-/.test(sent), `upstream was asked for ${sent}`);
  });
}

test('promise 5: a range outside the blob is 416 for its own client, not for others waiting for that blob', async () => {
  behave(() => ({ latency: 400 }));
  const { bytes, digest, url } = newBlob('outside', MiB);
  const outside = fetch(url(), { headers: { range: 'bytes=99999999-' } });
  await delay(100);
  assert.equal((await read(url())).digest, digest);
  const response = await outside;
  assert.equal(response.status, 416);
  assert.equal(response.headers.get('content-range'), `bytes */${bytes.length}`);
});

test('promise 3: empty blobs and sha512 blobs are verified and served like any other', async () => {
  behave(() => ({}));
  const empty = newBlob('', 0);
  for (let pull = 0; pull < 2; pull++) {
    const got = await read(empty.url());
    assert.deepEqual([got.status, got.size], [200, 0]);
    assert.equal((await fetch(empty.url(), { headers: { range: 'bytes=0-' } })).status, 416);
  }
  const bytes = randomBytes('long', 2 * MiB);
  const digest = upstream.addBlob(bytes, 'sha512');
  for (let pull = 0; pull < 2; pull++) {
    assert.equal((await read(`${registry.url}/v2/hub/a/b/blobs/${digest}`)).digest, sha256(bytes));
  }
  behave(() => ({ body: Buffer.alloc(1000) }));
  const wrong = `sha512:${createHash('sha512').update('other').digest('hex')}`;
  assert.equal((await fetch(`${registry.url}/v2/hub/a/b/blobs/${wrong}`)).status, 502);
});

test('promise 1: a blob whose size upstream never states is streamed completely, and kept', async () => {
  behave(() => ({ chunked: true, ignoreRange: true }));
  const { bytes, digest, url } = newBlob('chunked', 3 * MiB);
  assert.equal((await read(url())).digest, digest);
  behave(() => ({ status: 500 }));
  assert.equal((await read(url())).digest, digest);
  assert.equal((await fetch(url(), { method: 'HEAD' })).headers.get('content-length'), String(bytes.length));
});

test('promise 2: a body without end is read no longer than a client wants it', async () => {
  const { url, asked } = newBlob('endless', MiB);
  behave(() => ({ endless: true, chunked: true, ignoreRange: true, rate: 32 * MiB }));
  await read(url(), { stopAfter: 4 * MiB }).catch(() => 'left');
  let before = -1;
  await until(async () => {
    const now = asked().reduce((sum, { bytes }) => sum + bytes, 0);
    if (now === before) return true;
    before = now;
    await delay(200);
    return false;
  }, 'upstream is not read any more');
});

test('promise 3: when upstream lies about the length the client sees a cut connection, and nothing is kept', async () => {
  const { bytes, digest, url } = newBlob('liar', MiB);
  for (const how of [{ headers: { 'content-length': '1000' } }, { body: bytes.subarray(0, MiB - 1) }]) {
    behave(() => ({ ignoreRange: true, ...how }));
    const got = await read(url()).catch(() => undefined);
    assert.ok(got === undefined || got.status >= 500, `${Object.keys(how).join()}: ${got?.status} ${got?.size}`);
  }
  behave(() => ({}));
  assert.equal((await read(url())).digest, digest);
  assert.equal((await fetch(url(), { method: 'HEAD' })).headers.get('content-length'), String(bytes.length));
});

test('promise 3: a corrupt blob of unknown size ends in a reset for HTTP/1.0 clients, so that it never looks whole', async () => {
  const { bytes, digest } = newBlob('old', MiB);
  const wrong = Buffer.from(bytes);
  wrong[1000] = (wrong[1000] ?? 0) ^ 1;
  behave(() => ({ chunked: true, ignoreRange: true, body: wrong }));
  const { hostname, port } = new URL(registry.url);
  const socket = connect({ host: hostname, port: Number(port) });
  socket.write(`GET /v2/hub/a/b/blobs/${digest} HTTP/1.0\r\n\r\n`);
  let size = 0;
  socket.on('data', (chunk) => (size += chunk.length));
  const end = await new Promise((resolve) => socket.on('end', () => resolve('end')).on('error', ({ message }) => resolve(message)));
  assert.match(String(end), /ECONNRESET/, `after ${size} bytes`);
});

test('promise 2: clients that joined a download which upstream refuses to its first repository share a new one under their own', async () => {
  const { digest, url, asked } = newBlob('names', 2 * MiB);
  behave((path) => (path.includes('/denied/') ? { latency: 500, status: 403 } : {}));
  const refused = fetch(url('hub/denied/app'));
  await delay(100);
  const others = Array.from({ length: 10 }, () => read(url('other/public/app')));
  assert.equal((await refused).status, 403);
  for (const other of others) assert.equal((await other).digest, digest);
  assert.equal(asked().filter(({ path }) => path.includes('public')).length, 1);
});

test('promise 2: clients waiting for the same blob share one failure, and upstream is not asked once for each', async () => {
  const { url, asked } = newBlob('failing', MiB);
  behave(() => ({ latency: 300, status: 403 }));
  const all = await Promise.all(Array.from({ length: 12 }, () => fetch(url())));
  for (const response of all) assert.equal(await errorCode(response), 'DENIED');
  assert.ok(asked().length <= 2, `${asked().length} requests`);
});

test('promise 3: a mirror that sent wrong bytes is skipped when the blob is requested again, however soon', async () => {
  behave(() => ({}));
  for (let again = 0; again < 10; again++) {
    const { bytes, digest, url } = newBlob(`mirrored ${again}`, MiB);
    mirror.behave = () => ({ body: Buffer.alloc(bytes.length, 7) });
    assert.equal(await read(url('mirrored/a/b')).catch(() => 'cut'), 'cut');
    assert.equal((await read(url('mirrored/a/b'))).digest, digest);
  }
});

test('promise 14: without a spool directory blobs are streamed through, and kept again once there is one', async () => {
  behave(() => ({}));
  const first = newBlob('no spool', 3 * MiB);
  await rm(join(directory, '.tmp'), { recursive: true });
  assert.equal((await read(first.url())).digest, first.digest);
  assert.equal((await read(first.url(), { range: 'bytes=-1000' })).digest, sha256(first.bytes.subarray(-1000)));
});

test('a manifest does not wait behind eighty slow blobs', async () => {
  upstream.add('a/quick', '1', makeImage({ architectures: ['amd64'] }));
  const slow: Behaviour = { rate: 8 * 1024 };
  behave((path) => (path.includes('/blobs/') ? slow : {}));
  let ended = 0;
  const blobs = Array.from({ length: 80 }, (_, index) => newBlob(`slow ${index}`, 256 * 1024));
  const all = blobs.map(async ({ url, digest }) => {
    assert.equal((await read(url())).digest, digest);
    ended++;
  });
  await until(() => blobs.every(({ asked }) => asked().length > 0), 'all of them are being fetched at once');
  assert.equal((await fetch(`${registry.url}/v2/hub/a/quick/manifests/1`)).status, 200);
  assert.equal(ended, 0);
  delete slow.rate;
  await Promise.all(all);
});

test('SIGTERM lets running pulls finish', async () => {
  behave(() => ({ rate: 4 * MiB }));
  const { digest, url } = newBlob('stopping', 8 * MiB);
  const pull = read(url());
  await delay(300);
  const gone = registry.stop('SIGTERM');
  assert.equal((await pull).digest, digest);
  assert.equal(await gone, 0);
});
