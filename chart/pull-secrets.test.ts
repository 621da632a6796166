import assert from 'node:assert/strict';
import { test } from 'node:test';
import { at, configOf, find, notes, podOf, render, type Manifest } from './render.ts';

const VALUES = { webhook: { pullSecrets: 'use' }, pullSecrets: { namespaces: ['team-a', 'team-b', 'team-a'] } };
const ACCOUNTS = ['test-kube-registry-webhook', 'test-kube-registry-registry'];
const KEY_FILE = '/run/secrets/kube-registry/pull-secrets/key';

const ofSecrets = (manifests: readonly Manifest[]): Manifest[] =>
  manifests.filter(({ metadata }) => metadata.name.endsWith('-pull-secrets'));
const namespacesOf = (manifests: readonly Manifest[], kind: string): unknown[] =>
  manifests.filter((manifest) => manifest.kind === kind).map(({ metadata }) => at(metadata, 'namespace'));

test('by default nothing may read Secrets, and the registry has no token', async () => {
  const manifests = await render();
  assert.deepEqual(ofSecrets(manifests), []);
  assert.deepEqual(
    manifests.filter(({ rules }) => JSON.stringify(rules ?? '').includes('"watch"')),
    [],
  );
  assert.equal(podOf(find(manifests, 'Deployment', '-registry')).automountServiceAccountToken, false);
  for (const component of ['registry', 'webhook']) assert.equal(at(configOf(manifests, component), 'pullSecrets'), undefined);
});

test('promise 18: webhook and registry may read the Secrets of the namespaces that are listed, and of no other', async () => {
  const manifests = await render({ values: VALUES });
  const own = ofSecrets(manifests);
  assert.deepEqual(namespacesOf(own, 'Role'), ['team-a', 'team-b']);
  assert.deepEqual(namespacesOf(own, 'RoleBinding'), ['team-a', 'team-b']);
  assert.equal(own.length, 4, 'no ClusterRole');
  for (const manifest of own) {
    if (manifest.kind === 'Role')
      assert.deepEqual(manifest['rules'], [{ apiGroups: [''], resources: ['secrets'], verbs: ['list', 'watch'] }]);
    else {
      const subjects = manifest['subjects'] as { name: string; namespace: string }[];
      assert.deepEqual(
        subjects.map(({ name }) => name),
        ACCOUNTS,
      );
      assert.ok(subjects.every(({ namespace }) => namespace === 'images'));
    }
  }
  assert.equal(podOf(find(manifests, 'Deployment', '-registry')).automountServiceAccountToken, true);
});

test('all namespaces are a ClusterRole', async () => {
  const own = ofSecrets(await render({ values: { pullSecrets: { allNamespaces: true, namespaces: ['team-a'] } } }));
  assert.deepEqual(own.map(({ kind }) => kind).sort(), ['ClusterRole', 'ClusterRoleBinding']);
  assert.equal(at(find(own, 'ClusterRoleBinding'), 'roleRef.kind'), 'ClusterRole');
});

test('both have the same key, and nothing else has it', async () => {
  const sources = { [`test-kube-registry-names-key`]: 'token', mine: 'key' };
  for (const [secret, key] of Object.entries(sources)) {
    const pullSecrets = { ...VALUES.pullSecrets, ...(secret === 'mine' ? { existingSecret: secret } : {}) };
    const manifests = await render({ values: { ...VALUES, pullSecrets } });
    for (const component of ['webhook', 'registry']) {
      const config = at(configOf(manifests, component), 'pullSecrets');
      assert.deepEqual(config, { keyFile: KEY_FILE, namespaces: VALUES.pullSecrets.namespaces });
      const { volumes } = podOf(find(manifests, 'Deployment', `-${component}`));
      assert.match(JSON.stringify(volumes), new RegExp(`"${secret}"`));
      assert.match(JSON.stringify(volumes), new RegExp(`\\{"key":"${key}","path":"(?:pull-secrets/)?key"\\}`));
    }
    assert.doesNotMatch(JSON.stringify(find(manifests, 'DaemonSet', '-agent')), new RegExp(`"${secret}"`));
  }
});

test('the key is a token of an account without rights, which the chart never looks up', async () => {
  const manifests = await render({ values: VALUES });
  const secret = find(manifests, 'Secret', '-names-key');
  assert.equal(secret['type'], 'kubernetes.io/service-account-token');
  assert.equal(secret['data'], undefined);
  const account = find(manifests, 'ServiceAccount', '-names-key');
  assert.equal(at(secret, 'metadata.annotations')?.['kubernetes.io/service-account.name' as never], account.metadata.name);
  for (const { kind, subjects } of manifests) {
    if (kind.endsWith('Binding')) assert.doesNotMatch(JSON.stringify(subjects), /names-key/);
  }
});

test('promise 18: the chart leaves the path of reviews to the webhook, which derives an unguessable one', async () => {
  const service = 'webhooks.0.clientConfig.service';
  const own = find(await render({ values: VALUES }), 'MutatingWebhookConfiguration');
  assert.deepEqual(at(own, service), { name: 'test-kube-registry-webhook', namespace: 'images', port: 443 });
  assert.equal(at(find(await render(), 'MutatingWebhookConfiguration'), `${service}.path`), '/mutate');
});

test('the notes name the namespaces whose Secrets can be read, and the consequences', async () => {
  const text = await notes({ values: VALUES });
  assert.match(text, /may list all Secrets of team-a, team-b/);
  assert.match(text, /Anybody who can read the rewritten name of a private image/);
  assert.match(await notes({ values: { pullSecrets: { allNamespaces: true } } }), /all Secrets of every namespace/);
  assert.doesNotMatch(await notes(), /Secrets of/);
});
