import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Distribution } from '../support/distribution.ts';
import { makeImage, type TestImage } from '../support/image.ts';
import { startTokenServer } from '../support/token-server.ts';
import { until } from './cluster.ts';
import { assertBytes, createPod, podOf, ready, removePods, type Pod } from './pods.ts';
import type { createSteps } from './steps.ts';
import { install, RELEASE, values, type World } from './world.ts';

const PASSWORDS = { 'team-a': 'password of a', 'team-b': 'password of b' };
const TEAMS = Object.keys(PASSWORDS) as (keyof typeof PASSWORDS)[];
/** Has no pull secret. */
const STRANGER = 'team-c';
/** Its ServiceAccount has a pull secret for something else. */
const UNRELATED = 'team-d';
const NAMESPACES = [...TEAMS, STRANGER, UNRELATED];
/** Two private registries: one has a token service, the other checks passwords itself. */
const HOSTS = ['tokens.example.net', 'passwords.example.net'] as const;
const LAYERS = [100_000, 1_000_000];
const PRIVATE_NAME = /^127\.0\.0\.1:25000\/by-[a-z2-7]{26}\/(tokens|passwords)\.example\.net\/acme\/app:1$/;

/** Steps that pull private images with the pull secrets of pods (promise 18). They install or upgrade
 *  the chart in `namespace`, and expect a public image `web:1`. */
export function privateImageSteps(
  step: ReturnType<typeof createSteps>,
  { world, namespace }: { world: () => World; namespace: string },
): void {
  const registries: Distribution[] = [];
  let image: TestImage;

  /** Creates pods of a team, each with a private image of one of the registries.
   *  @returns the rewritten names of the images */
  async function createPods(team: string): Promise<string[]> {
    const made: string[] = [];
    for (const host of HOSTS) {
      const pod = await createPod(world(), `${team}/${nameOf(host)}`, `${host}/acme/app:1`, { imagePullSecrets: [{ name: 'registries' }] });
      made.push(pod.spec.containers[0]?.image ?? '');
    }
    return made;
  }
  async function assertRun(team: string): Promise<void> {
    for (const host of HOSTS) {
      await ready(world(), `${team}/${nameOf(host)}`);
      await assertBytes(world(), `${team}/${nameOf(host)}`, 'private', LAYERS);
    }
    await removePods(world(), team);
    await world().forget(image.root.digest);
  }
  async function assertRefused(name: string, reference: string): Promise<void> {
    await createPod(world(), name, reference);
    let state: string | undefined;
    const backsOff = (pod: Pod): boolean => {
      const waiting = pod.status.containerStatuses?.[0]?.state.waiting;
      state = waiting?.message;
      return waiting?.reason === 'ImagePullBackOff';
    };
    await until(async () => backsOff(await podOf(world(), name)));
    assert.match(state ?? '', /401|403|404|not found|denied|authorization/i, name);
  }

  step('the chart is to use the pull secrets of pods in some namespaces', async () => {
    image = makeImage({ seed: 'private', layers: LAYERS, architectures: ['amd64'], program: world().program });
    registries.push(...(await openRegistries(world(), image)));
    await createTeams(world());
    await install(world(), settings(), { namespace });
  });

  const names = new Map<string, string[]>();
  step('promise 18: pods of two namespaces pull a private image by their own secrets, and its layers come from upstream once', async () => {
    for (const team of TEAMS) {
      await settled(world(), team);
      names.set(team, await createPods(team));
      for (const name of names.get(team) ?? []) assert.match(name, PRIVATE_NAME);
      await assertRun(team);
    }
    assert.equal(new Set([...names.values()].flat()).size, TEAMS.length * HOSTS.length, 'each team has names of its own');
    const sent = registries.flatMap((registry) => registry.requests());
    const own = image.platforms[0]?.layers.slice(1) ?? []; // the program is in other images too
    for (const { digest } of own)
      assert.equal(
        sent.filter(({ method, path, status }) => method === 'GET' && path.endsWith(digest) && status === 200).length,
        1,
        digest,
      );
  });

  step('promise 18: a namespace without a secret gets nothing of it, by tag, by digest, or by the name without the id', async () => {
    const [host] = HOSTS;
    const references = {
      tag: `${host}/acme/app:1`,
      digest: `${host}/acme/app@${image.root.digest}`,
      plain: `127.0.0.1:25000/${host}/acme/app:1@${image.root.digest}`,
    };
    const asked = Object.entries(references).map(([name, reference]) => assertRefused(`${STRANGER}/${name}`, reference));
    await Promise.all(asked);
    await removePods(world(), STRANGER);
  });

  step('promise 18: a pod whose ServiceAccount has a secret for something else is rewritten', async () => {
    const name = `${UNRELATED}/public`;
    const pod = await createPod(world(), name, 'web:1');
    assert.deepEqual(pod.spec.imagePullSecrets, [{ name: 'unrelated' }]);
    assert.equal(pod.spec.containers[0]?.image, '127.0.0.1:25000/dockerhub/library/web:1');
    await ready(world(), name);
    await removePods(world(), UNRELATED);
  });

  step('promise 18: the documented change of the key makes new names, and ends the old ones', async () => {
    const [old = ''] = names.get('team-b') ?? [];
    assert.equal(await statusOf(world(), old), 200);
    // For the same ServiceAccount, Kubernetes would issue the same token again. It may remove the Secret
    // of a deleted ServiceAccount before kubectl does.
    await world().kubectl(['-n', namespace, 'delete', 'serviceaccount,secret', `${RELEASE}-names-key`, '--ignore-not-found']);
    await install(world(), settings(), { namespace });
    // The kubelet updates the files of a Secret when it synchronizes the pod: after up to a minute, or
    // when the pod changes.
    await world().kubectl(['-n', namespace, 'annotate', 'pods', '--all', `kube-registry-test/looked-at=${Date.now()}`]);
    await until(async () => (await statusOf(world(), old)) === 404);
    await settled(world(), 'team-b', old);
    names.set('team-b', await createPods('team-b'));
    assert.notEqual(names.get('team-b')?.[0], old);
    await assertRun('team-b');
  });

  step('promise 18: a deleted Secret ends its names at once', async (t) => {
    const [old = ''] = names.get('team-b') ?? [];
    assert.equal(await statusOf(world(), old), 200);
    await world().kubectl(['-n', 'team-b', 'delete', 'secret', 'registries']);
    const deleted = performance.now();
    await until(async () => (await statusOf(world(), old)) === 404);
    t.diagnostic(`refused ${Math.round(performance.now() - deleted)} ms after the Secret was deleted`);
    await assertRefused('team-b/late', old);
    await removePods(world(), 'team-b');
  });
}

function settings(): Record<string, unknown> {
  return values({
    objectStorage: { enabled: false },
    registry: { otherHosts: [...HOSTS] },
    webhook: { replicas: 1, pullSecrets: 'use' },
    pullSecrets: { namespaces: NAMESPACES },
  });
}

/** `tokens` of `tokens.example.net` */
function nameOf(host: string): string {
  return host.split('.', 1)[0] ?? '';
}

async function openRegistries({ outside }: World, image: TestImage): Promise<Distribution[]> {
  const tls = { ...outside.tls, name: 'auth.example.net' };
  const token = await outside.own(startTokenServer({ accounts: PASSWORDS, host: outside.addressOf('auth.example.net'), tls }));
  return Promise.all([
    outside.open('tokens.example.net', { repository: 'acme/app', image, auth: { token } }),
    outside.open('passwords.example.net', { repository: 'acme/app', image, auth: { htpasswd: PASSWORDS } }),
  ]);
}

/** The namespaces, and what of pull secrets is in them. */
async function createTeams({ kubectl }: World): Promise<void> {
  const items: object[] = [];
  for (const name of NAMESPACES) items.push({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  for (const team of TEAMS) items.push(pullSecret(team, 'registries', { hosts: HOSTS, username: team, password: PASSWORDS[team] }));
  items.push(pullSecret(UNRELATED, 'unrelated', { hosts: ['registry.example.org'], username: 'somebody', password: 'secret' }));
  await kubectl(['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items }));
  for (const team of NAMESPACES) await kubectl(['-n', team, 'wait', '--for=create', 'serviceaccount/default', '--timeout=5m']);
  await kubectl(['-n', UNRELATED, 'patch', 'serviceaccount', 'default', '--patch', '{"imagePullSecrets":[{"name":"unrelated"}]}']);
}

function pullSecret(namespace: string, name: string, login: { hosts: readonly string[]; username: string; password: string }): object {
  const auths = Object.fromEntries(login.hosts.map((host) => [host, { username: login.username, password: login.password }]));
  const data = { '.dockerconfigjson': Buffer.from(JSON.stringify({ auths })).toString('base64') };
  return { apiVersion: 'v1', kind: 'Secret', type: 'kubernetes.io/dockerconfigjson', metadata: { namespace, name }, data };
}

/** Waits until webhook and registry agree on a name of the team's image, other than `former`. */
async function settled(world: World, team: string, former = ''): Promise<void> {
  await until(async () => {
    const name = await rewritten(world, team, `${HOSTS[0]}/acme/app:1`);
    return name !== former && PRIVATE_NAME.test(name) && (await statusOf(world, name)) === 200;
  });
}

/** The image of a pod of the team as the webhook changes it. */
async function rewritten({ api }: World, team: string, image: string): Promise<string> {
  const spec = { containers: [{ name: 'main', image }], imagePullSecrets: [{ name: 'registries' }] };
  const pod = await api<Pod>('POST', `/api/v1/namespaces/${team}/pods?dryRun=All`, { metadata: { name: 'probe' }, spec });
  return pod.spec.containers[0]?.image ?? '';
}

/** What the node's agent answers to a pull of this image. */
async function statusOf({ network }: World, image: string): Promise<number> {
  const [, host = '', repository = ''] = /^([^/]+)\/(.*):1$/.exec(image) ?? [];
  const accept = 'application/vnd.oci.image.manifest.v1+json';
  const script = `console.log((await fetch('http://${host}/v2/${repository}/manifests/1', { headers: { accept: '${accept}' } })).status)`;
  const { stdout } = await promisify(execFile)(...network.wrap(process.execPath, ['--input-type=module', '--eval', script]));
  return Number(stdout);
}
