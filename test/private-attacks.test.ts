import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { hash } from '@node-rs/bcrypt';
import { access, writeFile } from 'node:fs/promises';
import { MANIFEST_MEDIA_TYPES } from '../src/oci/descriptor.ts';
import { makeImage, randomBytes, sha256 } from './support/image.ts';
import { startAgent, startProgram, startRegistry, type ServingProgram } from './support/program.ts';
import { startSecretCluster, type SecretCluster } from './support/pull-secrets.ts';
import { talk } from './support/raw-http.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { startVersitygw } from './support/versitygw.ts';

// Attempts to get a byte of a private image without a secret that upstream accepts for it. alice
// may read acme/app; mallory has a Secret for the same host, and may read acme/tools. The registry
// has everything stored, in S3, and redirects to it.

const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
const ALICE = basic('alice', 'secret');
const MALLORY = basic('mallory', 'known');
const CI = basic('ci', 'push');
const image = makeImage({ seed: 'private', architectures: ['amd64'], layers: [3_000_000, 70_000] });
const manifests = [image.root];
const contents = image.platforms.flatMap(({ config, layers }) => [config, ...layers]);
const digests = [...manifests, ...contents].map(({ digest }) => digest);
const needles = [...manifests, ...contents].map(({ bytes }) => bytes.subarray(-64).toString('latin1'));
const [{ digest: layer, size: layerSize } = assert.fail()] = image.platforms[0]?.layers ?? [];

const resources = new AsyncDisposableStack();
const names = { alice: '', mallory: '' };
let directory: string;
let cluster: SecretCluster;
let upstream: ScriptedUpstream;
let configuration: Record<string, unknown>;
let registry: ServingProgram;
let agent: ServingProgram;
/** Digests that exist in acme/app alone. */
const secret = new Set(digests);
let slow = '';

before(async () => {
  directory = resources.use(await temporaryDirectory()).path;
  cluster = resources.use(await startSecretCluster(directory));
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = resources.use(await startVersitygw());
  upstream = resources.use(await startScriptedUpstream());
  upstream.add('acme/app', '1', image);
  upstream.add('acme/tools', '1', makeImage({ seed: 'tools', architectures: ['amd64'] }));
  upstream.behave = ({ path, authorization }) => {
    const [, repository = ''] = /^\/v2\/(.+?)\/(?:manifests|blobs|tags|referrers)\//.exec(path) ?? [];
    const isSlow = slow !== '' && path.includes(slow);
    if (repository === 'open/thief') return path.includes('/blobs/') ? { status: 404 } : {};
    if (repository === 'acme/app' && authorization === ALICE) return isSlow ? { rate: 400_000 } : {};
    if (repository === 'acme/tools' && [ALICE, MALLORY].includes(authorization ?? '')) {
      return [...secret, slow].some((digest) => digest !== '' && path.includes(digest)) ? { status: 404 } : {};
    }
    if (authorization === undefined || ![ALICE, MALLORY].includes(authorization)) {
      return { status: 401, headers: { 'www-authenticate': 'Basic realm="upstream"' } };
    }
    return { status: 403 };
  };
  names.alice = await cluster.set('team-a', 'pull', { 'corp.example': { username: 'alice', password: 'secret' } });
  names.mallory = await cluster.set('team-m', 'pull', { 'corp.example': { username: 'mallory', password: 'known' } });
  const users = join(directory, 'users');
  await writeFile(users, `ci:${await hash('push', 4)}\n`);
  const everything = [{ users: ['ci'] }];
  configuration = {
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey, redirect: { ttl: '1m' } } },
    local: { directory: join(directory, 'tier') },
    upstreams: { corp: { url: upstream.url, hosts: ['corp.example'] } },
    defaultUpstream: 'corp',
    users,
    hosted: { local: { hosts: ['local.example'], push: everything, delete: everything } },
  };
  registry = resources.use(await startRegistry(configuration, { env: cluster.env }, cluster.config));
  agent = resources.use(
    await startAgent({ registry: registry.url }, { registry: { upstreams: configuration['upstreams'], defaultUpstream: 'corp' } }),
  );
  for (const digest of digests) {
    const kind = manifests.some((manifest) => manifest.digest === digest) ? 'manifests' : 'blobs';
    const path = `/v2/${names.alice}/corp/acme/app/${kind}/${digest}`;
    const response = await fetch(registry.url + path);
    assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest);
  }
  await until(async () => {
    const response = await fetch(`${registry.url}/v2/${names.alice}/corp/acme/app/blobs/${layer}`, { redirect: 'manual' });
    await response.body?.cancel();
    return response.status === 307;
  }, 'it is in S3, and alice is redirected there');
});
after(() => resources.disposeAsync());

/** Fails if the response contains, or redirects to, content of the private image. */
async function attempt(url: string, init: RequestInit = {}): Promise<number> {
  const response = await fetch(url, { redirect: 'manual', ...init });
  const bytes = Buffer.from(await response.arrayBuffer());
  const told = `${init.method ?? 'GET'} ${url} ${JSON.stringify(init.headers ?? {})}: ${response.status}`;
  assert.ok(![200, 206, 304, 307].includes(response.status) || !digests.some((digest) => url.includes(digest)), told);
  assertClean(bytes.toString('latin1'), told);
  assert.equal(response.headers.get('location')?.includes('/blobs/') ?? false, false, told);
  return response.status;
}

function assertClean(text: string, told: string): void {
  for (const needle of needles) assert.ok(!text.includes(needle), told);
}

const WAYS: RequestInit[] = [
  {},
  { method: 'HEAD' },
  { headers: { range: 'bytes=0-99' } },
  { headers: { range: 'bytes=-100' } },
  { headers: { range: 'bytes=0-9,20-29' } },
  { headers: { 'if-none-match': `"${layer}"` } },
  { headers: { 'if-none-match': '*' } },
  { headers: { 'if-range': `"${layer}"`, range: 'bytes=0-9' } },
];
const MARKS: Record<string, string>[] = [
  { 'x-kube-registry-hop': '1' },
  { authorization: MALLORY },
  { 'x-kube-registry-login': MALLORY },
  { 'x-kube-registry-login': MALLORY, 'x-kube-registry-hop': '1' },
  { 'x-kube-registry-agent': `node=127.0.0.1:25002&key=${'k'.repeat(43)}&zone=&keep=60&s3=1` },
];

/** Every way, and every mark. */
const REQUESTS: RequestInit[] = [...WAYS, ...MARKS.map((headers) => ({ headers }))];

test('promise 18: no other name, header or method opens a known digest', async () => {
  const prefixes = [
    'corp',
    `${names.mallory}/corp`,
    `by-${'a'.repeat(26)}/corp`,
    `${names.alice}/local`,
    `${names.mallory}/${names.alice}/corp`,
    'by-mirror/corp',
    'local',
    'acme',
  ];
  const resourcesOf = (repository: string) => [
    ...manifests.map(({ digest }) => `${repository}/manifests/${digest}`),
    ...contents.map(({ digest }) => `${repository}/blobs/${digest}`),
    ...contents.slice(0, 2).map(({ digest }) => `${repository}/manifests/${digest}`),
  ];
  for (const prefix of prefixes) {
    for (const path of [...resourcesOf(`${prefix}/acme/app`), ...resourcesOf(`${prefix}/acme/tools`)]) {
      await Promise.all(REQUESTS.map((init) => attempt(`${registry.url}/v2/${path}`, init)));
    }
    await attempt(`${registry.url}/v2/${prefix}/acme/app/manifests/1`);
    await attempt(`${registry.url}/v2/${prefix}/acme/app/tags/list`);
    const referrers = await fetch(`${registry.url}/v2/${prefix}/acme/app/referrers/${image.root.digest}`);
    assertClean(await referrers.text(), `referrers under ${prefix}`);
  }
});

test('promise 18: nothing opens it through an agent, in mirror mode or by rewritten names', async () => {
  for (const repository of ['acme/app', 'acme/tools']) {
    for (const path of [
      ...manifests.map(({ digest }) => `manifests/${digest}`),
      ...contents.map(({ digest }) => `blobs/${digest}`),
      'manifests/1',
    ]) {
      for (const authorization of [
        undefined,
        MALLORY,
        basic('alice', ''),
        basic('alice', 'wrong'),
        'Bearer x',
        `${MALLORY}, ${ALICE.slice(0, -4)}`,
      ]) {
        const headers = authorization === undefined ? {} : { authorization };
        if (repository === 'acme/tools' && path === 'manifests/1') continue; // mallory's own
        for (const method of ['GET', 'HEAD']) {
          await attempt(`${agent.url}/v2/${repository}/${path}?ns=corp.example`, { headers, method });
          await attempt(`${agent.url}/v2/${names.mallory}/corp/${repository}/${path}`, { headers, method });
        }
      }
    }
  }
});

test('promise 18: a download that runs for one secret cannot be joined with another', async () => {
  const blob = randomBytes('slow and private', 6_000_000);
  slow = upstream.addBlob(blob);
  needles.push(blob.subarray(0, 64).toString('latin1'), blob.subarray(-64).toString('latin1'));
  const running = await fetch(`${registry.url}/v2/${names.alice}/corp/acme/app/blobs/${slow}`);
  assert.equal(running.status, 200);
  digests.push(slow);
  for (const prefix of ['corp', `${names.mallory}/corp`, 'local']) {
    for (const repository of ['acme/app', 'acme/tools']) {
      await Promise.all(REQUESTS.map((init) => attempt(`${registry.url}/v2/${prefix}/${repository}/blobs/${slow}`, init)));
    }
  }
  await Promise.all(
    [MALLORY, basic('alice', 'no')].map((authorization) =>
      attempt(`${agent.url}/v2/acme/app/blobs/${slow}?ns=corp.example`, { headers: { authorization } }),
    ),
  );
  assert.equal(sha256(Buffer.from(await running.arrayBuffer())), slow);
  slow = '';
});

test('promise 18: a manifest that names it proves nothing', async () => {
  const named = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: layer, size: layerSize };
  for (const [index, mediaType] of MANIFEST_MEDIA_TYPES.entries()) {
    const document = { schemaVersion: 2, mediaType, config: named, layers: [named], manifests: [] };
    upstream.addManifest('acme/tools', `names-${index}`, Buffer.from(JSON.stringify(document)), mediaType);
    const path = `${names.mallory}/corp/acme/tools`;
    assert.equal((await fetch(`${registry.url}/v2/${path}/manifests/names-${index}`)).status, 200);
    for (const init of WAYS) await attempt(`${registry.url}/v2/${path}/blobs/${layer}`, init);
    const headers = { authorization: MALLORY };
    const mirrored = await fetch(`${agent.url}/v2/acme/tools/manifests/names-${index}?ns=corp.example`, { headers });
    assert.equal(mirrored.status, 200);
    await attempt(`${agent.url}/v2/acme/tools/blobs/${layer}?ns=corp.example`, { headers });
  }
});

test('promise 18: hosted repositories neither mount it, nor take a manifest that names it', async () => {
  const push = { authorization: CI };
  for (const from of [`${names.alice}/corp/acme/app`, `${names.mallory}/corp/acme/app`, 'corp/acme/app', 'by-mirror/corp/acme/app', '']) {
    for (const { digest } of [...contents, ...manifests]) {
      const query = `mount=${digest}${from === '' ? '' : `&from=${from}`}`;
      const response = await fetch(`${registry.url}/v2/local/x/blobs/uploads/?${query}`, { method: 'POST', headers: push });
      await response.arrayBuffer();
      assert.equal(response.status, 202, `${query}: an upload starts instead`);
    }
  }
  for (const { bytes, mediaType, digest } of manifests) {
    const response = await fetch(`${registry.url}/v2/local/x/manifests/${digest}`, {
      method: 'PUT',
      headers: { ...push, 'content-type': mediaType },
      body: bytes,
    });
    await response.arrayBuffer();
    assert.ok(response.status >= 400 && response.status < 500, `a manifest whose blobs are not there: ${response.status}`);
  }
  for (const digest of digests)
    for (const kind of ['blobs', 'manifests']) await attempt(`${registry.url}/v2/local/x/${kind}/${digest}`, { headers: push });
});

test('promise 18: odd request targets mean nothing else', async () => {
  const port = Number(new URL(registry.url).port);
  const target = `corp/acme/app/blobs/${layer}`;
  const targets = [
    `http://corp.example/v2/${target}`,
    `HTTP://127.0.0.1:${port}/v2/${target}?ns=corp.example`,
    `//v2/${target}`,
    `/v2//${target}`,
    `/v2/./${target}`,
    `/v2/${names.mallory}/../${target}`,
    `/v2/${names.mallory}%2f..%2f${target}`,
    `/v2/corp%2Facme%2Fapp/blobs/${layer}`,
    `/v2/${target}?ns=local.example`,
    `/v2/acme/app/blobs/${layer}?ns=corp.example&ns=local.example`,
    `/v2/acme/app/blobs/${layer}?ns=CORP.example`,
    `/v2/${names.mallory.toUpperCase()}/${target}`,
    `/v2/${target}#${names.alice}`,
    `/v2/${target};${names.alice}`,
    `*`,
  ];
  for (const one of targets) {
    const { text } = await talk(port, `GET ${one} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    assertClean(text, one);
    assert.doesNotMatch(text, /^HTTP\/1\.1 (?:20[06]|307)/, one);
  }
});

test('promise 18: the exports of the plain name hold nothing private, and lists name no id', async () => {
  const named = { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: layer, size: layerSize };
  const [, mediaType = ''] = MANIFEST_MEDIA_TYPES;
  const document = { schemaVersion: 2, mediaType, config: named, layers: [named] };
  upstream.addManifest('open/thief', '1', Buffer.from(JSON.stringify(document)), mediaType);
  assert.equal((await fetch(`${registry.url}/v2/corp/open/thief/manifests/1`)).status, 200);
  const own = ['corp/acme/app:1', `corp/acme/app@${image.root.digest}`, 'corp.example/acme/app:1'];
  // The last one is a public image with a manifest that names a private layer.
  for (const name of [...own, 'corp.example/open/thief:1']) {
    const output = join(directory, 'stolen.tar');
    for (const running of [{}, { listen: registry.host }]) {
      await using stolen = await startProgram(
        'cache',
        { registry: { ...configuration, ...running } },
        { args: ['export', name, '--output', output] },
      );
      assert.notEqual(await stolen.exited, 0, name);
      await assert.rejects(access(output), { code: 'ENOENT' }, name);
    }
  }
  await using ls = await startProgram('cache', { registry: configuration }, { args: ['ls', '--all', '--json'] });
  assert.equal(await ls.exited, 0);
  assert.doesNotMatch(ls.output(), /by-[a-z2-7]{20}/);
  assert.match(ls.output(), /"private": true/);
});

test('promise 18: after all that, alice still has her image', async () => {
  for (const { digest } of contents) {
    const response = await fetch(`${registry.url}/v2/${names.alice}/corp/acme/app/blobs/${digest}`);
    assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest);
  }
  assert.doesNotMatch(registry.output() + agent.output(), /by-[a-z2-7]{20}/);
});
