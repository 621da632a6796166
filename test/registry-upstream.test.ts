import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { makeImage, pushImage, randomBytes, sha256, type TestImage } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { errorCode, read } from './support/reading.ts';
import { until } from './support/until.ts';
import { startScriptedUpstream, type Behaviour, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startTokenServer, type TokenServer } from './support/token-server.ts';
import { debianTool } from './tools/tools.ts';
import { listenOnLoopback } from './support/http.ts';

const run = promisify(execFile);
const MiB = 2 ** 20;
const resources = new AsyncDisposableStack();
const images: Record<string, TestImage> = {};

let registry: ServingProgram;
let tokens: TokenServer;
let basic: Distribution;
let hub: ScriptedUpstream;
let cdn: ScriptedUpstream;
let mirrors: ScriptedUpstream[];

before(async () => {
  const directory = resources.use(await temporaryDirectory()).path;
  const data = join(directory, 'upstream');
  {
    await using open = await startDistribution({ directory: data });
    for (const repository of ['public/app', 'team/app', 'team/secret/app']) {
      images[repository] = makeImage({ architectures: ['amd64'], seed: repository });
      await pushImage(open.url, repository, '1', images[repository]);
    }
  }
  const allow = (account: string | undefined, repository: string) =>
    repository.startsWith('public/') || account === (repository.startsWith('team/secret/') ? 'boss' : 'robot');
  tokens = resources.use(await startTokenServer({ accounts: { robot: 'r0b0t', boss: 'b055' }, allow }));
  const withTokens = resources.use(await startDistribution({ directory: data, auth: { token: tokens } }));
  basic = resources.use(await startDistribution({ directory: data, auth: { htpasswd: { robot: 'r0b0t' } } }));
  const certificate = await makeCertificate(directory);
  const secure = resources.use(await startDistribution({ directory: data, tls: certificate }));
  hub = resources.use(await startScriptedUpstream());
  cdn = resources.use(await startScriptedUpstream());
  mirrors = [resources.use(await startScriptedUpstream()), resources.use(await startScriptedUpstream())];
  const [cert, key] = await Promise.all([readFile(certificate.certificate), readFile(certificate.key)]);
  const downgrading = createTlsServer({ cert, key }, ({ url }, response) =>
    response.writeHead(307, { location: `${hub.url}${url}` }).end(),
  );
  const insecure = resources.use(await listenOnLoopback(downgrading));
  const passwordFile = join(directory, 'password');
  await writeFile(passwordFile, 'r0b0t\n');
  registry = resources.use(
    await startRegistry({
      storage: { filesystem: { directory: join(directory, 'data') } },
      cache: { negativeTtl: '1h', tagTtl: '0ms' },
      upstreams: {
        token: {
          url: withTokens.url,
          credentials: [
            { repositories: 'team/', username: 'robot', passwordFile },
            { repositories: 'team/secret/', username: 'boss', password: 'b055' },
          ],
        },
        anonymous: { url: withTokens.url, hosts: ['anonymous.example'] },
        wrong: { url: withTokens.url, hosts: ['wrong.example'], credentials: [{ username: 'robot', password: 'guess' }] },
        basic: { url: basic.url, credentials: [{ username: 'robot', passwordFile }] },
        secure: { url: secure.url, ca: certificate.certificate },
        untrusted: { url: secure.url, hosts: ['untrusted.example'] },
        downgrading: { url: insecure.url, ca: certificate.certificate },
        hub: { url: hub.url, connections: 1 },
        signed: { url: hub.url, hosts: ['signed.example'], credentials: [{ username: 'robot', passwordFile }] },
        mirrored: { url: hub.url, hosts: ['mirrored.example'], mirrors: mirrors.map(({ url }) => ({ url })) },
      },
    }),
  );
});
after(() => resources.disposeAsync());

async function makeCertificate(directory: string): Promise<{ certificate: string; key: string }> {
  const [certificate, key] = [join(directory, 'tls.crt'), join(directory, 'tls.key')];
  const subject = ['-subj', '/CN=upstream', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '2', '-nodes'];
  const algorithm = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];
  await run(await debianTool('openssl'), ['req', '-x509', ...algorithm, '-keyout', key, '-out', certificate, ...subject]);
  return { certificate, key };
}

const manifest = (name: string, init?: RequestInit) => fetch(`${registry.url}/v2/${name}/manifests/1`, init);
const layerOf = (repository: string) => images[repository]?.platforms[0]?.layers[0]?.digest ?? '';

test('promise 12: tokens are anonymous where that suffices, else use the credentials with the longest prefix, and are shared', async () => {
  assert.equal((await manifest('token/public/app')).status, 200);
  assert.deepEqual(tokens.requests, [{ account: undefined, scopes: ['repository:public/app:pull'] }]);
  const all = await Promise.all([...Array(8).keys()].map(() => manifest('token/team/app')));
  assert.deepEqual(new Set(all.map(({ status }) => status)), new Set([200]));
  assert.equal((await manifest('token/team/secret/app')).status, 200);
  assert.deepEqual(
    tokens.requests.slice(1).map(({ account }) => account),
    ['robot', 'boss'],
  );
});

test('promise 12: a blob downloaded with credentials is refused under every other name', async () => {
  const digest = layerOf('team/secret/app');
  assert.equal((await read(`${registry.url}/v2/token/team/secret/app/blobs/${digest}`)).digest, digest);
  for (const [name, status] of [
    ['token/team/app', 404],
    ['token/public/app', 404],
    ['anonymous/team/secret/app', 401],
    ['wrong/team/secret/app', 401],
  ] as const) {
    for (const method of ['GET', 'HEAD']) {
      assert.equal((await fetch(`${registry.url}/v2/${name}/blobs/${digest}`, { method })).status, status, `${method} ${name}`);
    }
  }
  assert.equal(await errorCode(await manifest('wrong/team/app')), 'UNAUTHORIZED');
});

test('after one Basic challenge, later requests carry the password at once', async () => {
  assert.equal((await manifest('basic/team/app')).status, 200);
  const digest = layerOf('team/app');
  assert.equal((await read(`${registry.url}/v2/basic/team/app/blobs/${digest}`)).digest, digest);
  assert.equal(basic.requests().filter(({ status }) => status === 401).length, 1);
});

test('an upstream with a private CA is trusted through its own `ca` only', async () => {
  assert.equal((await manifest('secure/team/app')).status, 200);
  const response = await manifest('untrusted/team/app');
  assert.equal(response.status, 502);
  assert.match(await response.text(), /certificate of .* is not trusted .*ca/);
});

test('promise 12: no redirect leads from https to http', async () => {
  const response = await manifest('downgrading/team/app');
  assert.equal(response.status, 403);
  assert.match(await response.text(), /redirects from https to http/);
});

test('promise 4: a token that expires in the middle of a blob is renewed, and the download resumes', async () => {
  const bytes = randomBytes('token', 12 * MiB);
  const digest = hub.addBlob(bytes);
  let issued = 0;
  await using realm = await listenOnLoopback(
    createServer((_, response) => response.end(JSON.stringify({ token: `t${++issued}`, expires_in: 3600 }))),
  );
  const challenge = { 'www-authenticate': `Bearer realm="${realm.url}/token",service="hub"` };
  let valid = 1;
  hub.behave = ({ authorization }) => {
    if (authorization !== `Bearer t${valid}`) return { status: 401, headers: challenge };
    if (valid === 3) return {};
    valid++;
    return { cutAfter: 4 * MiB };
  };
  const before = hub.blobBytes();
  assert.equal((await read(`${registry.url}/v2/hub/a/token/blobs/${digest}`)).digest, digest);
  assert.equal(issued, 3);
  assert.ok(hub.blobBytes() - before <= 1.1 * bytes.length);
});

test('promise 12: a redirect gets no credentials, and a blob that is cut resumes through a new redirect', async () => {
  const bytes = randomBytes('signed', 12 * MiB);
  const digest = cdn.addBlob(bytes);
  let signatures = 0;
  const location = () => `${cdn.url}/v2/signed/blobs/${digest}?signature=${++signatures}`;
  hub.behave = ({ authorization }): Behaviour =>
    authorization === undefined
      ? { status: 401, headers: { 'www-authenticate': 'Basic realm="hub"' } }
      : { status: 307, headers: { location: location() } };
  const seen: string[] = [];
  cdn.behave = ({ path }) => {
    const signature = path.split('=')[1] ?? '';
    if (seen.includes(signature)) return { status: 403 };
    seen.push(signature);
    return seen.length < 3 ? { cutAfter: 5 * MiB } : {};
  };
  const url = `${registry.url}/v2/signed/a/signed/blobs/${digest}`;
  assert.equal((await read(url)).digest, digest);
  assert.deepEqual(
    cdn.requests.map(({ authorization }) => authorization),
    [undefined, undefined, undefined],
  );
  assert.deepEqual(
    cdn.requests.map(({ range }) => range?.replace(/\d+-\d*/, 'N-')),
    [undefined, 'bytes=N-', 'bytes=N-'],
  );
});

test("promise 8: upstream gets the full Accept list and accept-encoding: identity, never the client's headers", async () => {
  const image = makeImage({ architectures: ['amd64'], seed: 'headers' });
  hub.add('a/headers', '1', image);
  hub.behave = () => ({});
  const before = hub.requests.length;
  const headers = { authorization: 'Bearer of-the-client', accept: 'application/vnd.docker.distribution.manifest.v2+json' };
  const response = await manifest('hub/a/headers', { headers });
  assert.equal(response.headers.get('content-type'), image.root.mediaType);
  const asked = hub.requests.slice(before);
  assert.equal(asked.length, 1);
  for (const { accept = '', acceptEncoding, authorization } of asked) {
    assert.equal(accept.split(', ').length, 4, accept);
    assert.equal(acceptEncoding, 'identity');
    assert.equal(authorization, undefined);
  }
});

test('promise 8: mirrors are tried in order before url, and only the 404 of url is an answer', async () => {
  const [first, second] = mirrors as [ScriptedUpstream, ScriptedUpstream];
  const image = makeImage({ architectures: ['amd64'], seed: 'mirrors' });
  hub.behave = () => ({});
  hub.add('a/mirrors', '1', image);
  second.add('a/mirrors', '1', image);
  const counts = () => [first, second, hub].map(({ requests }) => requests.filter(({ path }) => path.includes('a/mirrors')).length);
  let before = counts();
  const asked = async () => {
    const response = await manifest('mirrored/a/mirrors');
    const now = counts();
    const difference = now.map((count, index) => count - (before[index] ?? 0));
    before = now;
    return [response.status, ...difference];
  };
  for (const status of [404, 401, 403]) {
    first.behave = () => ({ status });
    assert.deepEqual(await asked(), [200, status === 404 ? 1 : 2, 1, 0], `${status} of a mirror, to GET as to HEAD, moves on to the next`);
  }
  second.behave = () => ({ status: 404 });
  assert.deepEqual(await asked(), [200, 2, 2, 1], 'and at last to url');
  let hangUps = 0;
  first.add('a/mirrors', '1', image);
  first.behave = () => (hangUps++ === 0 ? { hangUp: true } : {});
  assert.deepEqual(await asked(), [200, 2, 0, 0], 'a connection that was closed meanwhile says nothing about a mirror');
  first.behave = () => ({ status: 500 });
  for (let failure = 0; failure < 3; failure++) assert.deepEqual(await asked(), [200, 1, 2, 1], 'a mirror that fails');
  first.behave = () => ({});
  assert.deepEqual(await asked(), [200, 0, 2, 1], 'is left out for a while after three times');
  hub.remove('a/mirrors', '1');
  assert.deepEqual(await asked(), [404, 0, 2, 2]);
  assert.deepEqual(await asked(), [404, 0, 0, 0], "url's own 404 is remembered");
});

test('promise 8: errors other than a 404 are not remembered', async () => {
  hub.add('a/errors', '1', makeImage({ architectures: ['amd64'], seed: 'errors' }));
  for (const [status, code] of [
    [403, 'DENIED'],
    [500, 'UNAVAILABLE'],
    [429, 'TOOMANYREQUESTS'],
  ] as const) {
    hub.behave = () => ({ status, headers: { 'retry-after': '1' } });
    const response = await manifest('hub/a/errors');
    if (status === 429) assert.equal(response.headers.get('retry-after'), '1');
    assert.equal(await errorCode(response), code);
  }
  hub.behave = () => ({});
  assert.equal((await manifest('hub/a/errors')).status, 200);
  const metrics = await (await fetch(`${registry.admin}/metrics`)).text();
  assert.match(metrics, /cache_reads_total\{upstream="hub",kind="manifest",outcome="error"\} 3$/m);
});

test('unusual but valid answers for manifests are accepted', async () => {
  const image = makeImage({ architectures: ['amd64'], seed: 'odd' });
  const rows: { how: Behaviour; status: number }[] = [
    { how: { informational: true }, status: 200 },
    { how: { noDigest: true }, status: 200 },
    { how: { chunked: true }, status: 200 },
    { how: { headers: { 'content-type': 'text/plain' } }, status: 200 }, // the manifest itself says what it is
    { how: { headers: { 'docker-content-digest': sha256(Buffer.from('other')) } }, status: 502 },
    { how: { endless: true, chunked: true }, status: 502 },
    { how: { headers: { 'content-length': '100000' }, cutAfter: 300 }, status: 502 },
    { how: { body: Buffer.from('{"schemaVersion":2}'), headers: { 'content-type': 'application/json' } }, status: 502 },
  ];
  for (const method of ['GET', 'HEAD']) {
    for (const [index, { how, status }] of rows.entries()) {
      const name = `a/odd-${method.toLowerCase()}-${index}`;
      hub.add(name, '1', image);
      hub.behave = () => how;
      const response = await manifest(`hub/${name}`, { method });
      const unseen = method === 'HEAD' && [4, 5, 6].includes(index); // only the body would show it
      if (!unseen) assert.equal(response.status, status, `${method} ${JSON.stringify(how)} gave ${await response.text()}`);
      if (status === 200) assert.equal(response.headers.get('docker-content-digest'), image.root.digest);
    }
  }
});

test('HEAD and GET of a manifest agree, and a HEAD naming a digest that was not requested is not believed', async () => {
  const image = makeImage({ architectures: ['amd64'], seed: 'digest' });
  hub.add('a/digest', '1', image);
  const { digest } = image.root;
  hub.behave = ({ method }) => (method === 'HEAD' ? { headers: { 'docker-content-digest': sha256(Buffer.from('another')) } } : {});
  const url = `${registry.url}/v2/hub/a/digest/manifests/${digest}`;
  const all = [await fetch(url, { method: 'HEAD' }), await fetch(url), await fetch(url, { method: 'HEAD' })];
  for (const response of all) {
    const headers = ['docker-content-digest', 'content-type', 'content-length', 'etag'].map((name) => response.headers.get(name));
    assert.deepEqual(headers, [digest, image.root.mediaType, String(image.root.size), `"${digest}"`]);
  }
});

test('a manifest downloaded as a blob keeps its media type as a manifest, and a blob is no manifest', async () => {
  const image = makeImage({ architectures: ['amd64'], seed: 'both' });
  const { root } = image;
  const { config } = image.platforms[0] ?? assert.fail();
  hub.behave = () => ({});
  hub.add('a/both', '1', image);
  hub.addBlob(root.bytes);
  const base = `${registry.url}/v2/hub/a/both`;
  for (const { digest } of [root, config]) assert.equal((await read(`${base}/blobs/${digest}`)).status, 200);
  for (const method of ['HEAD', 'GET']) {
    const response = await fetch(`${base}/manifests/${root.digest}`, { method });
    assert.equal(response.headers.get('content-type'), root.mediaType, method);
    assert.equal((await fetch(`${base}/manifests/${config.digest}`, { method })).status, 404, method);
  }
});

test('tag lists combine all pages, and a list without end is an error', async () => {
  const pages = (count: number) =>
    (hub.behave = ({ path }) => {
      const page = Number(/last=t(\d+)/.exec(path)?.[1] ?? 0);
      const link = page + 1 < count ? { link: `</v2/a/pages/tags/list?last=t${page + 1}>; rel="next"` } : undefined;
      return { status: 200, body: Buffer.from(JSON.stringify({ name: 'a/pages', tags: [`t${page}`] })), ...(link && { headers: link }) };
    });
  const url = `${registry.url}/v2/hub/a/pages/tags/list`;
  pages(5);
  assert.deepEqual(await (await fetch(url)).json(), { name: 'hub/a/pages', tags: ['t0', 't1', 't2', 't3', 't4'] });
  pages(Infinity);
  assert.equal(await errorCode(await fetch(url)), 'UNAVAILABLE');
  const first = await fetch(`${url}?n=2`);
  assert.equal(first.headers.get('link'), '</v2/hub/a/pages/tags/list?n=2&last=t1>; rel="next"');
});

test('while upstream cannot list tags, the tags pulled so far are listed', async () => {
  hub.add('a/listed', '1', makeImage({ architectures: ['amd64'], seed: 'listed' }));
  hub.behave = () => ({});
  assert.equal((await manifest('hub/a/listed')).status, 200);
  hub.behave = () => ({ status: 403 });
  const list = () => fetch(`${registry.url}/v2/hub/a/listed/tags/list`);
  await until(async () => (await list()).status === 200, 'records are written in the background');
  assert.deepEqual(await (await list()).json(), { name: 'hub/a/listed', tags: ['1'] });
  assert.equal((await fetch(`${registry.url}/v2/hub/a/never-pulled/tags/list`)).status, 403);
});
