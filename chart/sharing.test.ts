import assert from 'node:assert/strict';
import { test } from 'node:test';
import { at, configOf, find, podOf, render } from './render.ts';

const GiB = 2 ** 30;

test('with agent.share, agents share blobs on the address of their node, on a volume of bounded size', async () => {
  const manifests = await render({ values: { agent: { share: { enabled: true, maxSize: '4Gi', rate: '50MiB' } } } });
  assert.deepEqual(at(configOf(manifests, 'agent'), 'agent.share'), {
    enabled: true,
    listen: '0.0.0.0:25002',
    directory: '/var/lib/kube-registry/share',
    keep: '15m',
    maxSize: 4 * GiB,
    rate: '50MiB',
  });
  const { containers, volumes } = podOf(find(manifests, 'DaemonSet', '-agent'));
  const [agent] = containers;
  const args = agent?.args ?? [];
  assert.ok(args.includes('agent.share.address="$(NODE_ADDRESS)"'));
  assert.ok(args.includes('agent.share.zone="$(NODE_ZONE)"'));
  assert.deepEqual(
    at(
      agent?.env?.find(({ name }) => name === 'NODE_ADDRESS'),
      'valueFrom.fieldRef.fieldPath',
    ),
    'status.hostIP',
  );
  const share = volumes?.find(({ name }) => name === 'share');
  assert.equal(Number(at(share, 'emptyDir.sizeLimit')), 8 * GiB);
});

test('without agent.share, agents open no port on the address of their node', async () => {
  const manifests = await render();
  assert.equal(at(configOf(manifests, 'agent'), 'agent.share'), undefined);
  const { containers, volumes } = podOf(find(manifests, 'DaemonSet', '-agent'));
  assert.doesNotMatch(JSON.stringify([containers, volumes]), /share/);
});

test("the chart's own S3 server is named to agents by the address that nodes reach, and its port is open to them", async () => {
  const values = { objectStorage: { enabled: true }, networkPolicy: { enabled: true } };
  const manifests = await render({ values });
  assert.deepEqual(at(configOf(manifests, 'registry'), 'registry.storage.s3.redirect'), { clients: 'agents' });
  const pod = podOf(find(manifests, 'Deployment', '-registry'));
  assert.equal(at(pod, 'enableServiceLinks'), true);
  const args = pod.containers[0]?.args ?? [];
  assert.ok(args.includes('registry.storage.s3.redirect.endpoint=http://$(TEST_KUBE_REGISTRY_OBJECT_STORAGE_SERVICE_HOST):7070'));
  const policy = find(manifests, 'NetworkPolicy', '-object-storage');
  assert.deepEqual(at(policy, 'spec.ingress'), [{ ports: [{ port: 's3' }] }]);
  const without = await render({ values: { ...values, agent: { enabled: false }, webhook: { enabled: false } } });
  assert.equal(at(configOf(without, 'registry'), 'registry.storage.s3.redirect'), undefined);
});
