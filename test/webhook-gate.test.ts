import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { find, render } from '../chart/render.ts';
import { startControlPlane } from './support/control-plane.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { createReviewer, REVIEW, startWebhook } from './support/webhook.ts';

const NAMESPACE = 'kube-registry';
/** The time limit in ms for the webhook to notice a change: it checks every 3 s. */
const SEEN = 6000;

test('promise W6: nothing is rewritten before every node has had its agent, nor once many have lacked it for a while', async () => {
  await using cluster = await startControlPlane();
  const { kubectl } = cluster;
  await kubectl(['create', 'namespace', NAMESPACE]);
  const daemonSet = find(await render({ release: 'kube-registry', namespace: NAMESPACE }), 'DaemonSet');
  const { name } = daemonSet.metadata;
  await kubectl(['--namespace', NAMESPACE, 'create', '-f', '-'], JSON.stringify(daemonSet));
  // There is no controller: the test sets the status itself.
  const setReady = (numberReady: number): Promise<string> => {
    const status = { numberReady, desiredNumberScheduled: 10, currentNumberScheduled: 10, numberMisscheduled: 0 };
    const patch = ['--subresource=status', '--type=merge', '-p', JSON.stringify({ status })];
    return kubectl(['--namespace', NAMESPACE, 'patch', 'daemonset', name, ...patch]);
  };
  await setReady(9);

  await using temporary = await temporaryDirectory();
  await using reviewer = await createReviewer(temporary.path);
  const agents = { namespace: NAMESPACE, daemonSet: name };
  await using webhook = await startWebhook({ tls: reviewer.tls, agents }, { KUBECONFIG: cluster.kubeconfig });
  const rewrites = async (): Promise<boolean> => (await reviewer.post(webhook, REVIEW)).response.patch !== undefined;
  /** How many milliseconds it takes until it does, or does not. */
  async function until(wanted: boolean, what: string): Promise<number> {
    const started = performance.now();
    while ((await rewrites()) !== wanted) {
      assert.ok(performance.now() - started < 30_000, what);
      await delay(100);
    }
    return performance.now() - started;
  }
  async function stays(wanted: boolean, what: string): Promise<void> {
    for (const end = performance.now() + SEEN; performance.now() < end; await delay(500)) assert.equal(await rewrites(), wanted, what);
  }

  await stays(false, 'one node has never had its agent');
  await setReady(10);
  await until(true, 'all nodes have theirs');
  await setReady(9);
  await stays(true, 'nine of ten are enough then');
  await setReady(8);
  const took = await until(false, 'eight are not');
  assert.ok(took > 5000, `an agent may be restarted: ${took} ms`);
  await setReady(9);
  await until(true, 'nine are back');
  await cluster.stop();
  await stays(true, 'who cannot see them takes it as it was');
});
