import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { makeImage, randomBytes } from './support/image.ts';
import { startMihomo } from './support/mihomo.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { errorCode, read } from './support/reading.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';

const MiB = 2 ** 20;
const resources = new AsyncDisposableStack();
let upstream: ScriptedUpstream;
let cdn: ScriptedUpstream;
let registry: ServingProgram;

/** The same server under a name that only the proxy can resolve, so that the registry considers it
 *  external. */
const outside = ({ url }: ScriptedUpstream, name: string) => url.replace('127.0.0.1', name);

before(async () => {
  upstream = resources.use(await startScriptedUpstream());
  cdn = resources.use(await startScriptedUpstream());
  const port = await freePort();
  const hosts = { 'registry.example': '127.0.0.1', 'mirror.example': '127.0.0.1', 'cdn.example': '127.0.0.1' };
  resources.use(await startMihomo({ 'mixed-port': port, mode: 'direct', hosts }));
  const { path: directory } = resources.use(await temporaryDirectory());
  const http = `http://127.0.0.1:${port}`;
  const dead = `http://127.0.0.1:${await freePort()}`;
  const url = outside(upstream, 'registry.example');
  registry = resources.use(
    await startRegistry({
      storage: { filesystem: { directory } },
      cache: { tagTtl: '0ms' },
      upstreams: {
        http: { url, proxy: http },
        socks: { url, proxy: `socks5h://127.0.0.1:${port}`, hosts: ['socks.example'] },
        dead: { url, proxy: dead, hosts: ['dead.example'] },
        rescued: { url: upstream.url, proxy: dead, onProxyFailure: 'direct' },
        mirrored: { url, proxy: dead, hosts: ['mirrored.example'], mirrors: [{ url: outside(upstream, 'mirror.example'), proxy: http }] },
      },
    }),
  );
});
after(() => resources.disposeAsync());

function addBlob(seed: string): string {
  const bytes = randomBytes(seed, 300_000);
  cdn.addBlob(bytes);
  return upstream.addBlob(bytes);
}

for (const name of ['http', 'socks', 'rescued']) {
  test(`promise 16: images are pulled through the configured proxy, which resolves the names: ${name}`, async () => {
    upstream.behave = () => ({});
    upstream.add('a/b', name, makeImage({ architectures: ['amd64'], seed: name }));
    assert.equal((await fetch(`${registry.url}/v2/${name}/a/b/manifests/${name}`)).status, 200);
    const digest = addBlob(name);
    assert.equal((await read(`${registry.url}/v2/${name}/a/b/blobs/${digest}`)).digest, digest);
  });
}

for (const name of ['http', 'socks']) {
  test(`promise 6: a large blob is downloaded over several connections through a proxy, too: ${name}`, async (t) => {
    const [size, rate] = [16 * MiB, MiB];
    const digest = upstream.addBlob(randomBytes(`parallel ${name}`, size));
    upstream.behave = () => ({ rate });
    const before = upstream.requests.length;
    const got = await read(`${registry.url}/v2/${name}/a/b/blobs/${digest}`);
    assert.equal(got.digest, digest);
    const asked = upstream.requests.slice(before);
    const copies = asked.reduce((sum, { bytes }) => sum + bytes, 0) / size;
    t.diagnostic(
      `${asked.length} requests, ${copies.toFixed(2)} copies, ${(got.seconds / (size / rate)).toFixed(2)} of the time of one connection`,
    );
    assert.ok(asked.length >= 2, `${asked.length} requests`);
    assert.ok(copies <= 1.1, `${copies} copies`);
    const largest = Math.max(...asked.map(({ bytes }) => bytes)) / size;
    assert.ok(largest < 0.8, `one connection brought ${largest} of the blob`);
  });
}

test('promise 15: when the proxy is down, the error says that the proxy failed', async () => {
  const response = await fetch(`${registry.url}/v2/dead/a/b/manifests/1`);
  assert.equal(response.status, 502);
  assert.match(await response.text(), /cannot reach registry\.example/);
});

test("promise 16: a mirror's redirects go through the mirror's own proxy", async () => {
  const digest = addBlob('mirrored');
  upstream.behave = ({ path }) => ({ status: 307, headers: { location: outside(cdn, 'cdn.example') + path } });
  assert.equal((await read(`${registry.url}/v2/mirrored/a/b/blobs/${digest}`)).digest, digest);
});

for (const place of [
  '127.0.0.1',
  'localhost',
  'localhost.',
  '[::1]',
  '[::ffff:127.0.0.1]',
  '[64:ff9b::a9fe:a9fe]',
  '169.254.169.254',
  '10.0.0.1',
  '2130706433',
]) {
  test(`promise 12: no redirect leads to ${place}, and no token is requested there`, async () => {
    const { port } = new URL(cdn.url);
    const digest = addBlob(`inside ${place}`);
    const asked = cdn.requests.length;
    upstream.behave = ({ path }) => ({ status: 307, headers: { location: `http://${place}:${port}${path}` } });
    const url = `${registry.url}/v2/http/a/b/blobs/${digest}`;
    const redirected = await fetch(url);
    assert.equal(redirected.status, 403);
    assert.equal(await errorCode(redirected), 'DENIED');
    upstream.behave = () => ({ status: 401, headers: { 'www-authenticate': `Bearer realm="http://${place}:${port}/token"` } });
    assert.equal(await errorCode(await fetch(url)), 'DENIED');
    assert.equal(cdn.requests.length, asked);
  });
}

test('promise 12: no redirect leads to another scheme, and at most five are followed', async () => {
  const digest = addBlob('scheme');
  const url = `${registry.url}/v2/http/a/b/blobs/${digest}`;
  for (const location of ['file:///etc/passwd', 'ftp://cdn.example/']) {
    upstream.behave = () => ({ status: 302, headers: { location } });
    assert.equal(await errorCode(await fetch(url)), 'DENIED', location);
  }
  const before = upstream.requests.length;
  upstream.behave = ({ path }) => ({ status: 302, headers: { location: `${path}?again` } });
  assert.equal(await errorCode(await fetch(url)), 'UNAVAILABLE');
  assert.ok(upstream.requests.length - before <= 4 * 6, 'five redirects, a few attempts');
});
