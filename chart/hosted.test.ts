import assert from 'node:assert/strict';
import { test } from 'node:test';
import { at, configOf, find, podOf, render } from './render.ts';

const push = [{ users: ['ci'], serviceAccounts: ['team-a/builder'] }];
const VALUES = {
  registry: {
    otherHosts: ['mcr.microsoft.com'],
    hosted: { local: { hosts: ['registry.example.com'], push } },
    users: { htpasswd: 'ci:$2y$05$hash' },
    serviceAccount: { reviewTokens: true },
  },
};

test('hosted repositories get their users from a Secret, and may have tokens reviewed', async () => {
  const manifests = await render({ values: VALUES });
  const config = configOf(manifests, 'registry');
  assert.deepEqual(at(config, 'registry.hosted'), { local: { hosts: ['registry.example.com'], push } });
  assert.equal(at(config, 'registry.users'), '/run/secrets/kube-registry/users/htpasswd');
  assert.equal(at(find(manifests, 'Secret', '-users'), 'data.htpasswd'), Buffer.from('ci:$2y$05$hash').toString('base64'));
  assert.equal(at(find(manifests, 'ClusterRoleBinding', '-reviews-tokens'), 'roleRef.name'), 'system:auth-delegator');
  assert.equal(podOf(find(manifests, 'Deployment', '-registry')).automountServiceAccountToken, true);
});

test('agents and the webhook know which hosts are served, but not who may push', async () => {
  for (const values of [VALUES, { registry: { config: { otherHosts: ['mcr.microsoft.com'], hosted: VALUES.registry.hosted } } }]) {
    const manifests = await render({ values });
    for (const component of ['agent', 'webhook']) {
      const config = configOf(manifests, component);
      assert.deepEqual(at(config, 'registry.otherHosts'), ['mcr.microsoft.com'], component);
      assert.deepEqual(at(config, 'registry.hosted'), { local: { hosts: ['registry.example.com'] } }, component);
    }
  }
});
