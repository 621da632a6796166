import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, rename, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { startControlPlane } from './support/control-plane.ts';
import { makeImage, type TestImage } from './support/image.ts';
import { freeAddresses, PROGRAM, startRegistry } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

const run = promisify(execFile);
const [NODE, ...MAIN] = PROGRAM;
const NAMESPACE = 'kube-registry';
const ACCOUNT = 'kube-registry-registry';

/** The rights that the chart gives the registry for `warm.cluster` and `keepInUse`. */
const ROLE = [
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRole',
    metadata: { name: 'pods' },
    rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['list'] }],
  },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: 'pods' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'pods' },
    subjects: [{ kind: 'ServiceAccount', name: ACCOUNT, namespace: NAMESPACE }],
  },
];

function pod(name: string, image: string): object {
  return { apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace: 'default' }, spec: { containers: [{ name: 'main', image }] } };
}

/** Makes everything in a store three days older. */
async function age(directory: string): Promise<void> {
  const then = new Date(Date.now() - 3 * 86_400_000);
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) await utimes(join(entry.parentPath, entry.name), then, then);
  }
  const used = join(directory, 'v1/used');
  for (const day of await readdir(used)) await rename(join(used, day), join(used, then.toISOString().slice(0, 10)));
}

const paths = ({ root, platforms }: TestImage): string[] => [
  'manifests/1',
  `manifests/${root.digest}`,
  ...platforms.flatMap(({ manifest, config, layers }) => [
    `manifests/${manifest.digest}`,
    ...[config, ...layers].map(({ digest }) => `blobs/${digest}`),
  ]),
];

test('the images of the pods of a real cluster are warmed on schedule, and never pruned while pods use them', async () => {
  await using cluster = await startControlPlane();
  await using upstream = await startScriptedUpstream();
  await using folder = await temporaryDirectory();
  const images = new Map(['one', 'two', 'unused'].map((name) => [name, makeImage({ seed: `cluster ${name}`, layers: [50_000] })]));
  for (const [name, image] of images) upstream.add(`apps/${name}`, '1', image);
  const kubeconfig = await cluster.kubeconfigOf(`system:serviceaccount:${NAMESPACE}:${ACCOUNT}`, ['system:serviceaccounts']);
  const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace: 'default' } };
  for (const object of [...ROLE, account, pod('by-name', 'hub.example/apps/one:1'), pod('rewritten', '127.0.0.1:25000/hub/apps/two:1')]) {
    await cluster.kubectl(['create', '-f', '-'], JSON.stringify(object));
  }
  const own = {
    ...(await freeAddresses()),
    storage: { filesystem: { directory: join(folder.path, 'data') } },
    cache: { keepInUse: true, tagTtl: '1h' },
    upstreams: { hub: { url: upstream.url, hosts: ['hub.example'] } },
    warm: { cluster: true, platforms: ['all'], schedule: '* * * * *' },
  };
  const config = join(folder.path, 'config.yaml');
  await writeFile(config, JSON.stringify({ registry: own }));
  const env = { KUBECONFIG: kubeconfig };
  await using registry = await startRegistry(own, { env });
  const fetched = async (name: string): Promise<number[]> => {
    const answers = [];
    for (const path of paths(images.get(name) ?? assert.fail())) {
      const response = await fetch(`${registry.url}/v2/hub/apps/${name}/${path}`);
      await response.arrayBuffer();
      answers.push(response.status);
    }
    return answers;
  };
  const isServed = async (name: string) => (await fetched(name)).every((status) => status === 200);
  assert.ok(await isServed('unused'));
  await until(() => registry.log().some(({ event, warm }) => event === 'warming-finished' && Number(warm) >= 2), 'both are warm');

  upstream.behave = () => ({ status: 503 });
  for (const name of images.keys()) assert.ok(await isServed(name), `${name} is in the store`);

  /** @returns what it has removed, as JSON; it ends with 1, since what is in use is more than the limit */
  async function prune(): Promise<string> {
    const args = ['cache', 'prune', '--max-size', '1', '--force', '--json', '--config', config];
    const ended = await run(NODE, [...MAIN, ...args], { env: { ...process.env, ...env } }).catch((error: unknown) => error);
    const { code, stdout, stderr } = ended as { code?: number; stdout: string; stderr: string };
    assert.ok(code === 1 && stderr === '', `exit ${code}: ${stderr}`);
    return stdout;
  }
  await delay(1000); // records of use are written in the background
  await age(join(folder.path, 'data'));
  assert.match(await prune(), /unused/);
  assert.deepEqual([await isServed('one'), await isServed('two')], [true, true]);

  await cluster.kubectl(['delete', 'pod', 'rewritten', '--force', '--grace-period=0']);
  await cluster.stop();
  await assert.rejects(prune(), /cannot list the pods of the cluster .* nothing is removed/);
  assert.deepEqual([await isServed('one'), await isServed('two')], [true, true], 'an unknown list removes nothing');
});
