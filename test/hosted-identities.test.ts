import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startControlPlane } from './support/control-plane.ts';
import { makeImage, pushImage } from './support/image.ts';
import { startRegistry } from './support/program.ts';

const image = makeImage({ seed: 'identities', architectures: ['amd64'], layers: [1000] });

test('a pod pushes with the token of its ServiceAccount, and only where a rule names that', async () => {
  await using plane = await startControlPlane();
  for (const name of ['builder', 'other']) await plane.kubectl(['create', 'serviceaccount', name]);
  await plane.kubectl(['create', 'clusterrolebinding', 'review', '--clusterrole=system:auth-delegator', '--user=registry']);
  const push = [{ repositories: 'team/', serviceAccounts: ['default/builder'] }];
  const kubeconfig = await plane.kubeconfigOf('registry', []);
  await using registry = await startRegistry({ hosted: { local: { push } } }, { env: { KUBECONFIG: kubeconfig } });
  const token = async (name: string, audience: string) =>
    (await plane.kubectl(['create', 'token', name, `--audience=${audience}`, '--duration=10m'])).trim();
  const basic = (password: string) => `Basic ${Buffer.from(`serviceaccount:${password}`).toString('base64')}`;
  const builder = basic(await token('builder', 'kube-registry'));

  await pushImage(registry.url, 'local/team/app', '1', image, builder);
  const pulled = await fetch(`${registry.url}/v2/local/team/app/manifests/1`);
  assert.equal(pulled.headers.get('docker-content-digest'), image.root.digest);

  const statusOf = async (repository: string, authorization: string) =>
    (await fetch(`${registry.url}/v2/${repository}/blobs/uploads/`, { method: 'POST', headers: { authorization } })).status;
  assert.equal(await statusOf('local/elsewhere/app', builder), 403);
  assert.equal(await statusOf('local/team/app', basic(await token('other', 'kube-registry'))), 403);
  assert.equal(await statusOf('local/team/app', basic(await token('builder', 'another-audience'))), 401);
  assert.equal(await statusOf('local/team/app', basic('no.token.at-all')), 401);
  assert.ok(!registry.output().includes(builder.slice('Basic '.length)), 'no token is in the log');
});
