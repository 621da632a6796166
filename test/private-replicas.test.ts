import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { makeImage, pushImage, sha256 } from './support/image.ts';
import { startSecretCluster, type SecretCluster } from './support/pull-secrets.ts';
import { startReplicas, type Replica } from './support/replicas.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { startVersitygw } from './support/versitygw.ts';

// Private names over replicas that share one bucket, and with redirects to it.

const image = makeImage({ architectures: ['amd64'], layers: [4_000_000, 70_000] });
const [platform] = image.platforms;
const layers = (platform?.layers ?? []).map(({ digest }) => digest);
const [layer = ''] = layers;
const resources = new AsyncDisposableStack();
const names = { alice: '', eve: '' };
let cluster: SecretCluster;
let upstream: Distribution;
let replicas: Replica[];

before(async () => {
  const directory = resources.use(await temporaryDirectory()).path;
  const s3 = resources.use(await startVersitygw());
  cluster = resources.use(await startSecretCluster(directory));
  {
    await using open = await startDistribution({ directory: join(directory, 'upstream') });
    await pushImage(open.url, 'acme/app', '1', image);
  }
  const htpasswd = { alice: 'right' };
  upstream = resources.use(await startDistribution({ directory: join(directory, 'upstream'), auth: { htpasswd } }));
  names.alice = await cluster.set('team-a', 'pull', { 'corp.example': { username: 'alice', password: 'right' } });
  names.eve = await cluster.set('team-b', 'pull', { 'corp.example': { username: 'eve', password: 'wrong' } });
  const all = resources.use(
    await startReplicas({
      upstreams: { corp: { url: upstream.url, hosts: ['corp.example'], connections: 1 } },
      s3,
      count: 3,
      rest: cluster.config,
      env: cluster.env,
    }),
  );
  replicas = all.all;
});
after(() => resources.disposeAsync());

async function ask(at: Replica, path: string, init: RequestInit = {}): Promise<{ status: number; digest: string }> {
  const response = await fetch(`${at.url}/v2/${path}`, { redirect: 'manual', ...init });
  return { status: response.status, digest: sha256(Buffer.from(await response.arrayBuffer())) };
}

async function assertRefused(at: Replica, path: string): Promise<void> {
  for (const init of [{}, { method: 'HEAD' }, { headers: { range: 'bytes=0-9' } }, { headers: { 'x-kube-registry-hop': '1' } }]) {
    const { status } = await ask(at, path, init);
    assert.ok([401, 403, 404].includes(status), `${at.address} ${path} ${JSON.stringify(init)}: ${status}`);
  }
}

test('promise 18: over all replicas, the blobs are downloaded once, and other secrets get none of them', async () => {
  const pulls = replicas.flatMap((at) => layers.map((digest) => ({ at, digest })));
  await Promise.all(
    pulls.map(async ({ at, digest }) => assert.equal((await ask(at, `${names.alice}/corp/acme/app/blobs/${digest}`)).digest, digest)),
  );
  for (const digest of layers) {
    const transfers = upstream.requests().filter(({ method, path, status }) => method === 'GET' && path.includes(digest) && status === 200);
    assert.equal(transfers.length, 1, digest);
  }
  for (const at of replicas) {
    await assertRefused(at, `${names.eve}/corp/acme/app/blobs/${layer}`);
    await assertRefused(at, `${names.eve}/corp/acme/app/manifests/${image.root.digest}`);
    await assertRefused(at, `corp/acme/app/blobs/${layer}`);
  }
});

test('promise 18: a deleted Secret opens nothing on any replica', async () => {
  await cluster.remove('team-a', 'pull');
  const statuses = () => Promise.all(replicas.map(async (at) => (await ask(at, `${names.alice}/corp/acme/app/blobs/${layer}`)).status));
  await until(async () => (await statuses()).every((status) => status === 404), 'all replicas know', 10_000);
});
