import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startControlPlane } from './control-plane.ts';
import { until } from './until.ts';

test('a control plane of its own: objects, other users, and the controllers that were asked for', async () => {
  await using plane = await startControlPlane({ controllers: ['serviceaccount-controller', 'serviceaccount-token-controller'] });
  await plane.kubectl(['create', 'namespace', 'images']);
  assert.match(await plane.kubectl(['get', 'namespaces', '-o', 'name']), /namespace\/images/);
  const node = await plane.kubeconfigOf('system:node:n', ['system:nodes']);
  assert.match(await plane.kubectl(['--kubeconfig', node, 'auth', 'whoami']), /system:node:n/);
  const accounts = (): Promise<string> => plane.kubectl(['-n', 'images', 'get', 'serviceaccounts', '-o', 'name']);
  await until(async () => (await accounts()).includes('serviceaccount/default'), 'the namespace has its account');
});
