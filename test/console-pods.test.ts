import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { buildConsole } from '../console/build.ts';
import type { WebhookReport } from '../src/console/api/places.ts';
import { settled, startBrowser } from './support/browser.ts';
import { startControlPlane, type ControlPlane } from './support/control-plane.ts';
import { startProgram, startRegistry, type ServingProgram } from './support/program.ts';
import { until } from './support/until.ts';

const resources = new AsyncDisposableStack();
let plane: ControlPlane;
let registry: ServingProgram;

interface Own {
  namespace?: string;
  image?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  container?: Record<string, unknown>;
  spec?: Record<string, unknown>;
}

/** The pods of a cluster whose webhook has rewritten one of them, was down when another was
 *  created, and does not rewrite the rest. */
const PODS: Record<string, Own> = {
  rewritten: {
    image: '127.0.0.1:25000/dockerhub/library/nginx:1.27',
    annotations: { 'kube-registry/original-images': '{"main":"nginx:1.27"}' },
  },
  missed: {},
  system: { namespace: 'kube-system' },
  team: { namespace: 'team-a' },
  labelled: { labels: { 'kube-registry/rewrite': 'false' } },
  database: { labels: { 'cnpg.io/cluster': 'db' } },
  critical: { spec: { priorityClassName: 'system-cluster-critical', priority: 2_000_000_000 } },
  elsewhere: { image: 'registry.internal.example/team/app:1' },
  local: { container: { imagePullPolicy: 'Never' } },
  secret: { image: 'ghcr.io/acme/app:1', spec: { imagePullSecrets: [{ name: 'corp' }] } },
};
const REASONS: Record<keyof typeof PODS, string> = {
  rewritten: 'rewritten',
  missed: 'before',
  system: 'namespace',
  team: 'namespace',
  labelled: 'label',
  database: 'operator',
  critical: 'critical',
  elsewhere: 'other-registry',
  local: 'never-pulled',
  secret: 'pull-secret',
};

async function createPod(name: string, { namespace = 'default', image = 'nginx:1.27', labels, annotations, container, spec }: Own) {
  const containers = [{ name: 'main', image, ...container }];
  const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name, namespace, labels, annotations }, spec: { ...spec, containers } };
  await plane.kubectl(['create', '-f', '-'], JSON.stringify(pod));
}

before(async () => {
  plane = resources.use(await startControlPlane({ apiServer: ['--disable-admission-plugins=ServiceAccount,Priority'] }));
  await plane.kubectl(['create', 'namespace', 'team-a']);
  for (const [name, own] of Object.entries(PODS)) await createPod(name, own);
  await buildConsole();
  const webhook = { watchPods: '1s', exclude: { namespaces: ['kube-system', 'team-*'] } };
  registry = resources.use(
    await startRegistry({ console: { pods: true } }, { env: { KUBECONFIG: plane.kubeconfig } }, { webhook, log: { level: 'debug' } }),
  );
});
after(() => resources.disposeAsync());

async function report(query = ''): Promise<WebhookReport> {
  return (await (await fetch(`${registry.admin}/api/webhook?limit=500${query}`)).json()) as WebhookReport;
}

test('which pods of a real API server are not rewritten, and why: in the API and by `webhook report`', async () => {
  await until(async () => (await report()).takenAt !== null, 'the pods are listed');
  const { images, reasons, problem } = await report();
  assert.equal(problem, null);
  assert.deepEqual(Object.fromEntries(images.map(({ pod, reason }) => [pod, reason])), REASONS);
  assert.equal(images.find(({ pod }) => pod === 'rewritten')?.original, 'nginx:1.27');
  assert.equal(reasons.find(({ reason }) => reason === 'namespace')?.images, 2);
  assert.deepEqual(
    (await report('&search=corp%20acme')).images.map(({ pod }) => pod),
    [],
  );
  assert.deepEqual(
    (await report('&search=ghcr.io&rewritten=no')).images.map(({ pod }) => pod),
    ['secret'],
  );
  const config = { exclude: { namespaces: ['kube-system', 'team-*'] } };
  const command = await startProgram('webhook', { webhook: config }, { args: ['report', '--json'], env: { KUBECONFIG: plane.kubeconfig } });
  assert.equal(await command.exited, 0, command.output());
  const { rewritten: _own, ...left } = REASONS;
  const lines = JSON.parse(command.output()) as { pod: string; reason: string }[];
  assert.deepEqual(Object.fromEntries(lines.map(({ pod, reason }) => [pod, reason])), left);
});

test('kube_registry_pod_images counts what was missed, until the pod is created again', async () => {
  const counts = async (): Promise<Record<string, number>> => {
    const metrics = await (await fetch(`${registry.admin}/metrics`)).text();
    const rows = metrics.matchAll(/^kube_registry_pod_images\{state="(\w+)"\} (\d+)$/gm);
    return Object.fromEntries([...rows].map(([, state = '', count]) => [state, Number(count)]));
  };
  await until(async () => (await counts())['missed'] === 1, 'the missed pod is counted');
  assert.deepEqual(await counts(), { rewritten: 1, missed: 1, left_alone: 8 });
  await createPod('late', {});
  await until(async () => (await counts())['missed'] === 2, 'a further one is counted');
  await plane.kubectl(['delete', 'pod', 'late', '--grace-period=0', '--force']);
  await until(async () => (await counts())['missed'] === 1, 'one that is gone is not');
});

test('a newcomer finds on the page which pods were not rewritten, and why', async () => {
  await using browser = await startBrowser();
  await using own = await browser.open(`${registry.admin}/#/overview`);
  const { page } = own;
  const figure = page.locator('.figure', { hasText: 'Pod images not rewritten' });
  await figure.getByRole('link', { name: '9' }).click();
  await settled(page);
  const list = page.getByRole('region', { name: 'Images of pods' }).first();
  const row = (pod: string) => list.getByRole('row', { name: new RegExp(`^${pod}`) });
  await row('missed').getByText('was not rewritten when it was created').waitFor();
  await row('missed').getByText('restart the pod').waitFor();
  await row('database').getByText('managed by an operator that compares images').waitFor();
  await row('database').getByText('its operator would undo the change: nothing to do').waitFor();
  const headings = await page.getByRole('heading', { level: 2 }).allTextContents();
  assert.deepEqual(headings.slice(0, 2), ['Images of pods', 'Images by reason'], 'the pods come first');
  await row('team').getByText('its namespace is excluded').waitFor();
  assert.equal(await row('rewritten').count(), 0, 'those that were rewritten are not in the way');
  await page.getByRole('searchbox').fill('ghcr.io');
  await row('missed').waitFor({ state: 'detached' });
  await row('secret').getByText('has imagePullSecrets that are not read').waitFor();
  assert.deepEqual(own.errors, []);
});
