import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { rootCertificates } from 'node:tls';
import { startControlPlane } from '../test/support/control-plane.ts';
import { createHelm, createNamespace, everythingIn, removeClaims } from '../test/support/helm.ts';
import { until } from '../test/support/until.ts';
import { toolPath } from '../test/tools/tools.ts';
import { examples } from './examples.ts';
import { podOf, render, workloads } from './render.ts';

// The chart on a real API server: which objects it admits, which survive an upgrade and which are
// removed.

const NAMESPACE = 'images';
const RELEASE = 'kube-registry';
const plane = await startControlPlane({ controllers: ['serviceaccount-token-controller', 'serviceaccount-controller'] });
after(() => plane[Symbol.asyncDispose]());
const { kubectl } = plane;

const helm = createHelm(await toolPath('helm'), { kubeconfig: plane.kubeconfig, namespace: NAMESPACE });
const install = ['install', RELEASE, import.meta.dirname, '--values', '-'];
const upgrade = ['upgrade', RELEASE, import.meta.dirname, '--values', '-'];

/** Defines a kind of another project that the docs' values use. */
async function defineKind(group: string, version: string, kind: string): Promise<void> {
  const plural = `${kind.toLowerCase()}s`;
  const schema = { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } };
  const crd = {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: { plural, singular: kind.toLowerCase(), kind },
      versions: [{ name: version, served: true, storage: true, schema }],
    },
  };
  await kubectl(['apply', '-f', '-'], JSON.stringify(crd));
  await kubectl(['wait', '--for=condition=Established', `crd/${plural}.${group}`]);
}

await createNamespace(kubectl, NAMESPACE);
await defineKind('monitoring.coreos.com', 'v1', 'ServiceMonitor');
await defineKind('monitoring.coreos.com', 'v1', 'PrometheusRule');

test('the API server would take every values file of the docs', async () => {
  const namespaces = new Set([NAMESPACE]);
  for (const { file, values } of examples()) {
    const items = await render({ values, release: RELEASE, namespace: NAMESPACE });
    for (const [namespace, own] of Map.groupBy(items, ({ metadata }) => metadata.namespace ?? NAMESPACE)) {
      if (!namespaces.has(namespace)) await createNamespace(kubectl, namespace);
      namespaces.add(namespace);
      const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: own });
      const said = await kubectl(['-n', namespace, 'create', '--dry-run=server', '-o', 'name', '-f', '-'], list);
      assert.equal(said.trim().split('\n').length, own.length, file);
    }
  }
});

test('Pod Security "restricted" admits every pod but the agent\'s, which "privileged" admits', async () => {
  for (const level of ['restricted', 'privileged']) {
    await createNamespace(kubectl, level);
    await kubectl(['label', 'namespace', level, `pod-security.kubernetes.io/enforce=${level}`]);
  }
  const values = {
    objectStorage: { enabled: true },
    clash: { enabled: true, subscriptionUrl: 'https://airport.example/' },
    registry: { replicas: 2 },
  };
  const outcomes: string[] = [];
  for (const workload of workloads(await render({ values }))) {
    const { serviceAccountName: _own, ...spec } = podOf(workload);
    const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'pod' }, spec };
    for (const level of ['restricted', 'privileged']) {
      const outcome = await kubectl(['-n', level, 'create', '--dry-run=server', '-f', '-'], JSON.stringify(pod)).then(
        () => 'admits',
        (error: Error & { stderr: string }) => (/violates PodSecurity/.test(error.stderr) ? 'refuses' : error.stderr),
      );
      outcomes.push(`${level} ${outcome} ${workload.metadata.name.replace('test-kube-registry-', '')}`);
    }
  }
  const harmless = ['object-storage', 'registry', 'test', 'webhook'].flatMap((name) => [
    `restricted admits ${name}`,
    `privileged admits ${name}`,
  ]);
  assert.deepEqual(outcomes.sort(), [...harmless, 'restricted refuses agent', 'privileged admits agent'].sort());
});

test('install, upgrade, roll back and uninstall leave nothing behind but the claims', async () => {
  const before = await everythingIn(kubectl, NAMESPACE);
  const values = { objectStorage: { enabled: true }, registry: { replicas: 2 } };
  await helm(install, values);
  await helm(upgrade, { ...values, clash: { enabled: true, subscriptionUrl: 'https://airport.example/' }, logLevel: 'debug' });
  await helm(['rollback', RELEASE, '1']);
  assert.doesNotMatch(await helm(['get', 'manifest', RELEASE]), /airport\.example|level: debug/);
  await helm(['uninstall', RELEASE]);
  const left = (await everythingIn(kubectl, NAMESPACE)).filter((name) => !before.includes(name));
  assert.deepEqual(left, ['persistentvolumeclaim/kube-registry-object-storage']);

  await helm(install, values); // and the claim is taken up again
  await helm(['uninstall', RELEASE]);
  await removeClaims(kubectl, NAMESPACE);
});

test('fields written by the cluster and the webhook survive upgrades and rollbacks', async () => {
  const read = (kind: string, name: string, path: string): Promise<string> =>
    kubectl(['-n', NAMESPACE, 'get', kind, name, '-o', `jsonpath={${path}}`]);
  const values = { objectStorage: { enabled: true } };
  await helm(install, values);
  const token = (): Promise<string> => read('secret', 'kube-registry-object-storage-token', '.data.token');
  await until(async () => (await token()) !== '', 'the cluster makes a token');
  const first = await token();
  assert.ok(first.length > 100, 'the cluster made a key');

  const patch = (kind: string, name: string, content: unknown): Promise<string> =>
    kubectl(['-n', NAMESPACE, 'patch', kind, name, '--type=json', '-p', JSON.stringify(content)]);
  await patch('secret', 'kube-registry-webhook-tls', [{ op: 'add', path: '/data', value: { 'tls.key': 'a2V5' } }]);
  const caBundle = Buffer.from(rootCertificates[0] ?? '').toString('base64');
  await patch('mutatingwebhookconfiguration', 'kube-registry-webhook', [
    { op: 'add', path: '/webhooks/0/clientConfig/caBundle', value: caBundle },
  ]);

  await helm(upgrade, { ...values, logLevel: 'debug', webhook: { exclude: { extraNamespaces: ['more'] } } });
  await helm(['rollback', RELEASE, '1']);
  assert.equal(await token(), first);
  assert.equal(await read('secret', 'kube-registry-webhook-tls', '.data.tls\\.key'), 'a2V5');
  assert.equal(await read('mutatingwebhookconfiguration', 'kube-registry-webhook', '.webhooks[0].clientConfig.caBundle'), caBundle);
  await helm(['uninstall', RELEASE]);
});

test('an upgrade takes images from a volume to S3 and back, whose pods follow each other differently', async () => {
  const strategy = (): Promise<string> =>
    kubectl(['-n', NAMESPACE, 'get', 'deployment', 'kube-registry-registry', '-o', 'jsonpath={.spec.strategy.type}']);
  await helm(install, {});
  assert.equal(await strategy(), 'Recreate');
  const s3 = { config: { bucket: 'images' }, secret: { accessKeyId: 'id', secretAccessKey: 'key' } };
  await helm(upgrade, { registry: { replicas: 2, s3 } });
  assert.equal(await strategy(), 'RollingUpdate');
  await helm([...upgrade, '--reset-values'], {});
  assert.equal(await strategy(), 'Recreate');
  await helm(['uninstall', RELEASE]);
  await removeClaims(kubectl, NAMESPACE);
});
