import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { makeImage, randomBytes, sha256, type TestImage } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { metric } from './support/replicas.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';

// Docker Hub's limits: a GET of a manifest counts as a pull, a HEAD or a blob does not; the headers
// state the remaining pulls.

let hub: ScriptedUpstream;
let registry: ServingProgram;
const image = makeImage({ architectures: ['amd64'] });
let pulls = 0;

before(async () => {
  hub = await startScriptedUpstream();
  hub.add('library/app', '1', image);
  hub.add('library/app', 'latest', image);
  registry = await startRegistry({
    cache: { tagTtl: '1ms' },
    upstreams: { dockerhub: { url: hub.url }, quay: { url: hub.url } },
  });
});
after(async () => {
  await registry[Symbol.asyncDispose]();
  await hub[Symbol.asyncDispose]();
});
beforeEach(() => (pulls = 100));

/** The headers that Docker Hub adds to its responses. */
function limited(): (typeof hub)['behave'] {
  return ({ method, path }) => {
    if (!path.includes('/manifests/')) return {};
    if (method === 'GET') pulls--;
    return { headers: { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': `${pulls};w=21600` } };
  };
}

async function get(path: string, init: RequestInit = {}): Promise<{ status: number; digest: string; retryAfter: string | null }> {
  const response = await fetch(`${registry.url}/v2/${path}`, init);
  const digest = sha256(Buffer.from(await response.arrayBuffer()));
  return { status: response.status, digest, retryAfter: response.headers.get('retry-after') };
}

async function asked(work: () => Promise<unknown>): Promise<string[]> {
  const from = hub.requests.length;
  await work();
  return hub.requests.slice(from).map(({ method, path }) => `${method} ${path.split('/').at(-1)}`);
}

function addImage(tag: string): TestImage {
  const made = makeImage({ architectures: ['amd64'], seed: tag });
  hub.add('library/app', tag, made);
  return made;
}

test('promise 9: where GETs of manifests are counted as pulls, tags are checked with HEAD, and a cached image costs no pull', async () => {
  hub.behave = limited();
  assert.equal((await get('dockerhub/library/app/manifests/1')).digest, image.root.digest);
  assert.equal(await metric(registry.admin, 'ratelimit_remaining', 'dockerhub'), 99);
  assert.deepEqual(await asked(() => get('dockerhub/library/app/manifests/latest')), ['HEAD latest']);
  const other = addImage('other');
  assert.deepEqual(await asked(() => get('dockerhub/library/app/manifests/other')), ['HEAD other', `GET ${other.root.digest}`]);
  assert.equal(await metric(registry.admin, 'ratelimit_remaining', 'dockerhub'), 98);
});

test('promise 9: with few pulls left, cached tags are served without asking upstream, and new images are still pulled', async () => {
  hub.behave = limited();
  pulls = 6;
  const fresh = addImage('fresh');
  assert.equal((await get('dockerhub/library/app/manifests/fresh')).digest, fresh.root.digest);
  assert.equal(pulls, 5);
  for (const tag of ['1', 'latest', 'fresh']) {
    assert.deepEqual(await asked(async () => assert.equal((await get(`dockerhub/library/app/manifests/${tag}`)).status, 200)), []);
  }
  const newer = addImage('newer');
  assert.equal((await get('dockerhub/library/app/manifests/newer')).digest, newer.root.digest);
  assert.equal(await metric(registry.admin, 'ratelimit_remaining', 'dockerhub'), 4);
  assert.ok((await asked(() => get('quay/library/app/manifests/1'))).length > 0, 'another upstream has its own');
  pulls = 101;
  addImage('plenty');
  await get('dockerhub/library/app/manifests/plenty');
  assert.deepEqual(await asked(() => get('dockerhub/library/app/manifests/1')), ['HEAD 1'], 'as soon as there are enough');
});

test('promise 9: a 429 with Retry-After is honoured for every tag of that upstream, and blobs still download', async () => {
  hub.behave = ({ path }) => (path.includes('/manifests/') ? { status: 429, headers: { 'retry-after': '4' } } : {});
  assert.equal((await asked(() => get('dockerhub/library/app/manifests/1'))).length, 1);
  const unknown = addImage('unknown');
  const requests = await asked(async () => {
    for (const tag of ['1', 'latest', 'fresh', 'newer']) assert.equal((await get(`dockerhub/library/app/manifests/${tag}`)).status, 200);
  });
  assert.deepEqual(requests, []);
  const refused = await get('dockerhub/library/app/manifests/unknown');
  assert.deepEqual([refused.status, refused.retryAfter], [429, '4'], 'a request with nothing cached gets a 429 too');
  const blob = hub.addBlob(randomBytes('blob', 1000));
  assert.equal((await get(`dockerhub/library/app/blobs/${blob}`)).digest, blob);
  hub.behave = limited();
  await delay(4200);
  assert.equal((await get('dockerhub/library/app/manifests/unknown')).digest, unknown.root.digest);
  assert.deepEqual(await asked(() => get('dockerhub/library/app/manifests/1')), ['HEAD 1']);
});
