import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { NAMESPACE, RELEASE, startRewriting, type Rewriting } from './support/both-ways.ts';
import { createHelm, type Helm } from './support/helm.ts';
import { until } from './support/until.ts';
import { toolPath } from './tools/tools.ts';

const CHART = join(import.meta.dirname, '../chart');
const WORKERS = 3;

interface Created {
  pods: number;
  /** Each with the step during which it was created. */
  unrewritten: string[];
  denied: string[];
}

/** Creates pods all the time, one after another in each of some workers, until it is stopped. */
function createPods(ways: Rewriting, step: () => string): { created: Created; stop(this: void): Promise<void> } {
  const created: Created = { pods: 0, unrewritten: [], denied: [] };
  let stopped = false;
  const pod = (name: string) => ({ metadata: { name }, spec: { containers: [{ name: 'a', image: 'registry.k8s.io/pause:3.10' }] } });
  const work = async (worker: number): Promise<void> => {
    while (!stopped) {
      const before = step();
      const { status, body } = await ways.send({ way: 'none', namespace: 'default', object: pod(`pod-${worker}`) });
      created.pods++;
      const during = `${before} → ${step()}`;
      if (status !== 201) created.denied.push(`${during}: ${status} ${JSON.stringify(body['message'])}`);
      else if (JSON.stringify(body['spec']).includes('"registry.k8s.io/pause')) created.unrewritten.push(during);
    }
  };
  const workers = Promise.all(Array.from({ length: WORKERS }, (_, worker) => work(worker)));
  return {
    created,
    async stop() {
      stopped = true;
      await workers;
    },
  };
}

/** The policy does not rewrite pods of this operator. Neither does the webhook, but it has to be
 *  called. */
async function askWebhook(ways: Rewriting): Promise<boolean> {
  const before = await ways.reviews();
  const metadata = { name: 'asks-the-webhook', labels: { 'cnpg.io/cluster': 'x' } };
  await ways.send({ way: 'none', namespace: 'default', object: { metadata, spec: { containers: [{ name: 'a', image: 'nginx' }] } } });
  return (await ways.reviews()) > before;
}

async function policyChecks({ plane }: Rewriting): Promise<number> {
  const metrics = await plane.kubectl(['get', '--raw', '/metrics']);
  const counts = metrics.matchAll(/^apiserver_mutating_admission_policy_check_total\{.*error_type="no_error".*\} (\d+)$/gm);
  return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
}

/** From webhook mode to policy mode and back, with the steps of docs/admission-policy.md. */
async function switchBothWays(ways: Rewriting, helm: Helm, begin: (step: string) => void): Promise<void> {
  const switchTo = async (mode: string): Promise<void> => {
    begin(`upgrade to ${mode}`);
    await helm(['upgrade', RELEASE, CHART, '--values', '-'], { webhook: { mode } });
    begin(mode);
  };
  const policyIsInUse = async (): Promise<void> => {
    const before = await policyChecks(ways);
    await until(async () => (await policyChecks(ways)) > before, 'the policy is in use');
  };
  await switchTo('both');
  await policyIsInUse();
  await ways.webhook.stop(); // its Deployment goes with the next upgrade
  await switchTo('policy');
  await policyIsInUse();

  await switchTo('both');
  begin('the webhook starts');
  await ways.webhook.start();
  await until(() => askWebhook(ways), 'API servers ask the webhook');
  await switchTo('webhook');
  const before = await ways.reviews();
  await until(async () => (await ways.reviews()) > before + 20, 'the webhook alone rewrites');
}

test('switching between webhook and policy, either way by `both`, leaves no pod unrewritten and denies none', async (t: TestContext) => {
  await using ways = await startRewriting(await toolPath('kube-apiserver-1.36'), {});
  // In Helm 4, post-renderers are plugins.
  const rendererFlags = [
    '--post-renderer',
    process.execPath,
    '--post-renderer-args',
    join(import.meta.dirname, 'support/post-renderer.ts'),
  ];
  process.env['CLIENT_CONFIG'] = JSON.stringify(ways.called);
  const plain = createHelm(await toolPath('helm-3'), { kubeconfig: ways.plane.kubeconfig, namespace: NAMESPACE });
  const helm: Helm = (args, values) => plain([...args, ...rendererFlags], values);
  await helm(['install', RELEASE, CHART, '--values', '-'], {});
  await ways.reportAgentsReady();
  await until(() => askWebhook(ways), 'API servers ask the webhook');
  let step = 'webhook';
  const isRewritten = async (): Promise<boolean> => {
    const object = { metadata: { name: 'first' }, spec: { containers: [{ name: 'a', image: 'nginx' }] } };
    const { body } = await ways.send({ way: 'none', namespace: 'default', object });
    return JSON.stringify(body['spec']).includes('127.0.0.1:25000');
  };
  await until(isRewritten, 'the agents are ready for the webhook');
  const { created, stop } = createPods(ways, () => step);
  try {
    await switchBothWays(ways, helm, (next) => (step = next));
  } finally {
    await stop();
  }
  t.diagnostic(`${created.pods} pods were created meanwhile`);
  assert.deepEqual(created.unrewritten, []);
  assert.deepEqual(created.denied, []);
  assert.ok(created.pods > 100, `${created.pods} pods`);
});
