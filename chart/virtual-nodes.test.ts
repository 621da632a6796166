import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startControlPlane } from '../test/support/control-plane.ts';
import { find, render } from './render.ts';

/** Labels of virtual nodes, as their makers set them. */
const VIRTUAL: Record<string, Record<string, string>> = {
  tke: { 'node.kubernetes.io/instance-type': 'eklet' },
  ack: { type: 'virtual-kubelet', 'kubernetes.io/role': 'agent', 'alibabacloud.com/virtual-node': 'true' },
  fargate: { 'eks.amazonaws.com/compute-type': 'fargate' },
  liqo: { 'liqo.io/type': 'virtual-node' },
};

test('agents are neither wanted nor counted on virtual nodes, whose taints they tolerate', async () => {
  await using plane = await startControlPlane({ controllers: ['serviceaccount-controller', 'daemonset-controller'] });
  const { kubectl } = plane;
  await kubectl(['create', 'namespace', 'images']);
  const create = (object: unknown): Promise<string> => kubectl(['-n', 'images', 'create', '-f', '-'], JSON.stringify(object));
  for (const [name, labels] of Object.entries({ one: {}, two: {}, ...VIRTUAL })) {
    const taints = name in VIRTUAL ? [{ key: 'virtual', effect: 'NoSchedule' }] : [];
    const metadata = { name, labels: { 'kubernetes.io/os': 'linux', ...labels } };
    await create({ apiVersion: 'v1', kind: 'Node', metadata, spec: { taints } });
  }
  await create(find(await render(), 'DaemonSet'));
  let status: { observedGeneration?: number; desiredNumberScheduled?: number } = {};
  for (let left = 150; left > 0 && status.observedGeneration === undefined; left--) {
    await delay(200);
    const [daemonSet] = (
      JSON.parse(await kubectl(['-n', 'images', 'get', 'daemonset', '-o', 'json'])) as { items: { status: typeof status }[] }
    ).items;
    status = daemonSet?.status ?? {};
  }
  assert.equal(status.desiredNumberScheduled, 2, 'the nodes that are machines');
});
