import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { startControlPlane, type ControlPlane } from './support/control-plane.ts';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { makeImage, pushImage } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startTokenServer } from './support/token-server.ts';
import { until } from './support/until.ts';
import { createReviewer, startWebhook, type Reviewer, type RunningWebhook } from './support/webhook.ts';

// Webhook and registry together, on a real API server: the registry serves the names that the
// webhook assigns to pods. Two upstreams, one with a file of passwords and one with a token
// service.

const PASSWORDS = { 'team-a': 'password of a', 'team-b': 'password of b' };
const TEAMS = Object.keys(PASSWORDS) as (keyof typeof PASSWORDS)[];
const HOSTS = ['passwords.example', 'tokens.example'] as const;
const image = makeImage({ layers: [100_000, 2_000_000], architectures: ['amd64'] });
const layer = image.platforms[0]?.layers.at(-1)?.digest ?? '';

const stack = new AsyncDisposableStack();
let cluster: ControlPlane;
let reviewer: Reviewer;
let webhook: RunningWebhook;
let registry: ServingProgram;
let keyFile = '';
const upstreams: Record<string, Distribution> = {};

before(async () => {
  cluster = stack.use(await startControlPlane());
  const { path } = stack.use(await temporaryDirectory());
  const token = stack.use(await startTokenServer({ accounts: PASSWORDS }));
  for (const host of HOSTS) {
    const directory = join(path, host);
    await using open = await startDistribution({ directory });
    await pushImage(open.url, 'acme/app', '1', image);
    const auth = host === 'tokens.example' ? { token } : { htpasswd: PASSWORDS };
    upstreams[host] = stack.use(await startDistribution({ directory, auth }));
  }
  for (const namespace of [...TEAMS, 'team-c']) await cluster.kubectl(['create', 'namespace', namespace]);
  for (const team of TEAMS) await putSecret(team, 'registries', PASSWORDS[team]);
  keyFile = join(path, 'key');
  await writeFile(keyFile, 'a key of 16 characters and more');
  reviewer = stack.use(await createReviewer(path));
  const authHosts = [new URL(token.realm).host];
  const served = Object.fromEntries(
    HOSTS.map((host) => [host.split('.')[0] ?? '', { url: upstreams[host]?.url, hosts: [host], authHosts }]),
  );
  const pullSecrets = { allNamespaces: true, keyFile };
  const env = { KUBECONFIG: cluster.kubeconfig };
  webhook = stack.use(await startWebhook({ tls: reviewer.tls, pullSecrets: 'use' }, env, { pullSecrets, registry: { upstreams: served } }));
  registry = stack.use(await startRegistry({ upstreams: served, cache: { tagTtl: '0' } }, { env }, { pullSecrets }));
});
after(() => stack.disposeAsync());

/** A pull secret of the team for both registries. */
async function putSecret(namespace: keyof typeof PASSWORDS, name: string, password: string): Promise<void> {
  const auths = Object.fromEntries(HOSTS.map((host) => [host, { username: namespace, password }]));
  const data = { '.dockerconfigjson': Buffer.from(JSON.stringify({ auths })).toString('base64') };
  const secret = { apiVersion: 'v1', kind: 'Secret', type: 'kubernetes.io/dockerconfigjson', metadata: { namespace, name }, data };
  await cluster.kubectl(['apply', '--server-side', '-f', '-'], JSON.stringify(secret));
}

/** The repository from which a pod of the namespace would pull, by its rewritten name. */
async function repositoryFor(namespace: string, host: string, secrets: readonly string[] = ['registries']): Promise<string> {
  const spec = { containers: [{ name: 'a', image: `${host}/acme/app:1` }], imagePullSecrets: secrets.map((name) => ({ name })) };
  const { response } = await reviewer.post(
    webhook,
    JSON.stringify({ request: { uid: 'u', operation: 'CREATE', namespace, object: { spec } } }),
  );
  const patch = JSON.parse(Buffer.from(response.patch ?? 'W10=', 'base64').toString()) as { path: string; value: string }[];
  return patch.find(({ path }) => path.endsWith('/image'))?.value.replace(/^127\.0\.0\.1:25000\/(.*):1$/, '$1') ?? '';
}

async function statusOf(repository: string, what = 'manifests/1'): Promise<number> {
  const accept = 'application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json';
  const response = await fetch(`${registry.url}/v2/${repository}/${what}`, { headers: { accept } });
  await response.arrayBuffer();
  return response.status;
}
/** The statuses of the tag, the digest and a layer. */
const statuses = async (repository: string): Promise<number[]> =>
  Promise.all(['manifests/1', `manifests/${image.root.digest}`, `blobs/${layer}`].map((what) => statusOf(repository, what)));

test('promise 18: pods of two namespaces pull with their own secrets, each from each registry, and a layer is downloaded once', async () => {
  for (const host of HOSTS) for (const team of TEAMS) assert.deepEqual(await statuses(await repositoryFor(team, host)), [200, 200, 200]);
  const sent = Object.values(upstreams).flatMap((upstream) => upstream.requests());
  assert.equal(sent.filter(({ method, path, status }) => method === 'GET' && path.endsWith(layer) && status === 200).length, 1);
});

test('promise 18: a namespace without a secret gets nothing of it, nor does an id open another upstream or repository', async () => {
  for (const host of HOSTS) {
    const repository = await repositoryFor('team-c', host, []);
    assert.doesNotMatch(repository, /by-/);
    for (const status of await statuses(repository)) assert.ok([401, 403, 404].includes(status), `${repository}: ${status}`);
  }
  const own = await repositoryFor('team-a', HOSTS[0]);
  for (const other of [
    own.replace('/passwords/', '/dockerhub/'),
    own.replace('acme/app', 'acme/other'),
    own.replace(/by-[^/]*/, `by-${'a'.repeat(26)}`),
  ])
    for (const status of await statuses(other)) assert.equal(status, 404);
});

test('promise 18: of two secrets for one host the second is tried when the first is refused', async () => {
  await putSecret('team-b', 'wrong', 'wrong');
  let repository = '';
  const both = async (): Promise<boolean> => (repository = await repositoryFor('team-b', HOSTS[0], ['wrong', 'registries'])) !== '';
  await until(both, 'the webhook knows the new Secret');
  assert.match(repository, /^by-[a-z2-7]{26}-[a-z2-7]{26}\//);
  await until(async () => (await statusOf(repository)) === 200, 'the registry knows it too');
  assert.deepEqual(await statuses(repository), [200, 200, 200]);
});

test('promise 18: a deleted Secret ends its names, and a new key all of them', async () => {
  const deleted = await repositoryFor('team-a', HOSTS[0]);
  await cluster.kubectl(['-n', 'team-a', 'delete', 'secret', 'registries']);
  await until(async () => (await statusOf(deleted)) === 404, 'the Secret is gone');
  assert.deepEqual(await statuses(deleted), [404, 404, 404]);

  const old = await repositoryFor('team-b', HOSTS[0]);
  assert.deepEqual(await statuses(old), [200, 200, 200]);
  await writeFile(keyFile, 'another key of 16 characters and more');
  await until(async () => (await statusOf(old)) === 404, 'the registry has the new key');
  await until(async () => ![old, ''].includes(await repositoryFor('team-b', HOSTS[0])), 'the webhook has it too');
  assert.deepEqual(await statuses(await repositoryFor('team-b', HOSTS[0])), [200, 200, 200]);
  assert.deepEqual(await statuses(old), [404, 404, 404]);
  for (const program of [webhook, registry]) assert.doesNotMatch(program.output(), /by-[a-z2-7]{26}|password of/);
});
