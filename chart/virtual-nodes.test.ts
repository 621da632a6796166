import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startControlPlane } from '../test/support/control-plane.ts';
import { until } from '../test/support/until.ts';
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
  const isCounted = async (): Promise<boolean> => {
    const { items } = JSON.parse(await kubectl(['-n', 'images', 'get', 'daemonset', '-o', 'json'])) as {
      items: { status: typeof status }[];
    };
    status = items[0]?.status ?? {};
    return status.observedGeneration !== undefined;
  };
  await until(isCounted, 'the nodes are counted');
  assert.equal(status.desiredNumberScheduled, 2, 'the nodes that are machines');
});
