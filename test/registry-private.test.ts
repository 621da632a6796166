import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startDistribution } from './support/distribution.ts';
import { makeImage, pushImage, randomBytes, sha256 } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { until } from './support/until.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { startTap, type Tap } from './support/tap.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startTokenServer } from './support/token-server.ts';
import { startVersitygw, type Versitygw } from './support/versitygw.ts';
import { listenOnLoopback } from './support/http.ts';

// Access rights when images share one bucket and some of them are private.

const resources = new AsyncDisposableStack();
const accounts: Record<string, string> = { robot: 'first' };
const image = makeImage({ architectures: ['amd64'], layers: [3_000_000, 70_000, 1000] });
const [platform] = image.platforms;
const layer = platform?.layers[0]?.digest ?? '';
const blobs = [platform?.config.digest ?? '', ...(platform?.layers ?? []).map(({ digest }) => digest)];

let directory: string;
let passwordFile: string;
let s3: Versitygw;
let tap: Tap;
let hub: ScriptedUpstream;
let upstreams: Record<string, unknown>;
let registry: ServingProgram;
let realm: { url: string; seen: (string | undefined)[] };

before(async () => {
  directory = resources.use(await temporaryDirectory()).path;
  passwordFile = join(directory, 'password');
  await writeFile(passwordFile, 'first\n');
  const data = join(directory, 'upstream');
  {
    await using open = await startDistribution({ directory: data });
    for (const name of ['team/app', 'team/other', 'team/late', 'public/app'])
      await pushImage(open.url, name, '1', name === 'team/app' ? image : makeImage({ seed: name }));
  }
  const allow = (account: string | undefined, repository: string) => repository.startsWith('public/') || account !== undefined;
  const tokens = resources.use(await startTokenServer({ accounts, allow, lifetime: 60 }));
  const upstream = resources.use(await startDistribution({ directory: data, auth: { token: tokens } }));
  hub = resources.use(await startScriptedUpstream());
  realm = await startRealm('127.0.0.2');
  s3 = resources.use(await startVersitygw());
  tap = resources.use(await startTap(s3.endpoint));
  const credentials = [{ repositories: 'team/', username: 'robot', passwordFile }];
  upstreams = {
    corp: { url: upstream.url, hosts: ['corp.example'], credentials },
    nobody: { url: upstream.url, hosts: ['nobody.example'] },
    plain: { url: hub.url },
    careful: { url: hub.url, hosts: ['careful.example'], credentials },
    trusting: { url: hub.url, hosts: ['trusting.example'], credentials, authHosts: [new URL(realm.url).host] },
  };
  registry = resources.use(await start('first', { redirect: { ttl: '1m' } }));
});
after(() => resources.disposeAsync());

function start(name: string, storage: Record<string, unknown> = {}): Promise<ServingProgram> {
  const { bucket, region, accessKeyId, secretAccessKey } = s3;
  return startRegistry({
    storage: { s3: { endpoint: tap.url, bucket, region, accessKeyId, secretAccessKey, ...storage } },
    local: { directory: join(directory, name) },
    upstreams,
  });
}

/** A token server on another host than its registry, which records the requests. */
async function startRealm(host: string): Promise<typeof realm> {
  const seen: (string | undefined)[] = [];
  const server = createServer(({ headers }, response) => {
    seen.push(headers.authorization);
    response.end(JSON.stringify({ token: 'anything' }));
  });
  const { url } = resources.use(await listenOnLoopback(server, host));
  return { url: `${url}/token`, seen };
}

async function pull(at: ServingProgram, name = 'corp/team/app'): Promise<void> {
  for (const path of ['manifests/1', ...blobs.map((digest) => `blobs/${digest}`)]) {
    const response = await fetch(`${at.url}/v2/${name}/${path}`);
    const digest = sha256(Buffer.from(await response.arrayBuffer()));
    assert.equal(response.status, 200, path);
    assert.equal(digest, path.startsWith('blobs/') ? path.slice(6) : image.root.digest);
  }
}

async function isStored(): Promise<void> {
  await until(async () => {
    const response = await fetch(`${registry.url}/v2/corp/team/app/blobs/${layer}`, { redirect: 'manual' });
    await response.body?.cancel();
    return response.status === 307;
  }, 'it is in S3, and given from there');
}

test('promise 10: an access record costs one write per digest, one read per digest and process, and nothing after that', async (t) => {
  const count = (kind: RegExp) => tap.requests.filter(({ method, path }) => kind.test(`${method} ${path}`)).length;
  const timed = async (work: Promise<void>) => {
    const started = performance.now();
    await work;
    return performance.now() - started;
  };
  const digests = 1 + blobs.length;
  tap.requests.length = 0;
  await pull(registry);
  await until(() => count(/^PUT .*_members/) >= digests && count(/^PUT .*\/blobs/) >= digests, 'everything is stored');
  t.diagnostic(
    `cold: ${count(/_members/)} of ${tap.requests.length} requests to S3 for member records, ${count(/^PUT .*_members/)} of them writes`,
  );
  assert.equal(count(/^PUT .*_members/), digests);

  await using second = await start('second');
  await until(() => tap.requests.some(({ method, path }) => method === 'GET' && !path.includes('v1')), 'it has looked for its bucket');
  tap.requests.length = 0;
  const first = await timed(pull(second));
  const [reads, all] = [count(/_members/), tap.requests.length];
  tap.requests.length = 0;
  const again = await timed(pull(second));
  t.diagnostic(
    `warm, a process that knows nothing: ${reads} of ${all} requests, ${first.toFixed(0)} ms; again: ${count(/_members/)} of ${tap.requests.length}, ${again.toFixed(0)} ms`,
  );
  assert.equal(reads, digests);
  assert.equal(count(/_members/), 0);
});

test('an access record that is not in memory is read while S3 is asked for the blob', async (t) => {
  await using slow = await startTap(s3.endpoint, { latency: 100 });
  const digests = Array.from({ length: 16 }, (_, index) => hub.addBlob(randomBytes(`record ${index}`, 100_000)));
  const read = async (at: ServingProgram, digest: string, method = 'GET') => {
    const started = performance.now();
    const response = await fetch(`${at.url}/v2/plain/a/b/blobs/${digest}`, { method });
    await response.arrayBuffer();
    assert.equal(response.status, 200);
    return performance.now() - started;
  };
  for (const digest of digests) await read(registry, digest);
  await until(
    () =>
      digests.every((digest) =>
        tap.requests.some(({ method, path }) => method === 'PUT' && path.includes('/blobs/') && path.endsWith(digest.slice(7))),
      ),
    'all is stored',
  );
  await using other = await start('slow', { endpoint: slow.url });
  await read(other, digests.pop() ?? ''); // connections, code
  const [without, known] = [digests.slice(0, 7), digests.slice(7, 14)];
  for (const digest of known) await read(other, digest, 'HEAD');
  const times = { without: [] as number[], known: [] as number[] };
  for (let index = 0; index < 7; index++) {
    times.without.push(await read(other, without[index] ?? ''));
    times.known.push(await read(other, known[index] ?? ''));
  }
  const [first, second] = [times.without, times.known].map((all) => all.sort((a, b) => a - b)[3] ?? 0) as [number, number];
  t.diagnostic(
    `100 kB at 100 ms a question: ${first.toFixed(0)} ms with the record to be read, ${second.toFixed(0)} ms without: ratio ${(first / second).toFixed(2)}`,
  );
  const asked = (start: string, digest: string) =>
    slow.requests.find(({ method, path }) => `${method} ${path}`.startsWith(start) && path.endsWith(digest.slice(7)))?.at ?? Infinity;
  const apart = without.map((digest) => asked('GET /images/v1/repos/', digest) - asked('GET /images/v1/blobs/', digest));
  assert.ok(apart.filter((time) => Math.abs(time) < 50).length > 3, `both questions at once: ${apart.map(Math.round).join(', ')} ms apart`);
  assert.ok(
    !slow.requests.some(({ method, path }) => method === 'HEAD' && path.includes('/v1/blobs/')),
    'what is asked for is the blob itself',
  );
});

test("promise 12: a credentialed repository's blobs and manifests are refused under every other name, whatever the request", async () => {
  await isStored();
  const paths = [
    ...['corp/team/other', 'corp/public/app', 'nobody/team/app', 'nobody/public/app', 'corp/team/app/sub'].flatMap((name) => [
      `${name}/blobs/${layer}`,
      `${name}/manifests/${image.root.digest}`,
    ]),
    ...['team/other', 'public/app'].map((name) => `${name}/blobs/${layer}?ns=corp.example`),
    `team/app/blobs/${layer}?ns=nobody.example`,
    `team/app/manifests/${image.root.digest}?ns=nobody.example`,
  ];
  const ways: RequestInit[] = [
    {},
    { method: 'HEAD' },
    { headers: { range: 'bytes=0-9' } },
    { headers: { range: 'bytes=-9' } },
    { headers: { 'if-none-match': `"${layer}"` } },
  ];
  await using empty = await start('empty'); // it has nothing but what S3 gives it
  for (const { url } of [registry, empty]) {
    const refuse = async (path: string, init: RequestInit) => {
      const refused = await fetch(`${url}/v2/${path}`, { ...init, redirect: 'manual' });
      await refused.body?.cancel();
      assert.ok([401, 403, 404].includes(refused.status), `${path} ${JSON.stringify(init)}: ${refused.status}`);
    };
    for (const init of ways) await Promise.all(paths.map((path) => refuse(path, init)));
    const allowed = await fetch(`${url}/v2/team/app/blobs/${layer}?ns=corp.example`);
    assert.equal(sha256(Buffer.from(await allowed.arrayBuffer())), layer);
  }
});

test('promise 12: a token realm on another host gets no credentials unless authHosts lists it', async () => {
  hub.addManifest('team/hub', '1', image.root.bytes);
  hub.behave = ({ authorization }) =>
    authorization === 'Bearer anything'
      ? {}
      : { status: 401, headers: { 'www-authenticate': `Bearer realm="${realm.url}",service="hub"` } };
  for (const name of ['careful', 'trusting'])
    assert.equal((await fetch(`${registry.url}/v2/${name}/team/hub/manifests/1`)).status, 200, name);
  assert.deepEqual(realm.seen, [undefined, `Basic ${Buffer.from('robot:first').toString('base64')}`]);
});

test('credentials rotate with their file, without a restart', async () => {
  const status = async () => (await fetch(`${registry.url}/v2/corp/team/late/manifests/1`)).status;
  accounts['robot'] = 'second';
  assert.equal(await status(), 401, 'the file is old');
  await writeFile(passwordFile, 'second\n');
  assert.equal(await status(), 200);
});
