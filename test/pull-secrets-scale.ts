import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { median } from '../bench/turns.ts';
import { processorSeconds } from '../bench/processor-time.ts';
import { inParallel } from '../src/async/parallel.ts';
import { startControlPlane } from './support/control-plane.ts';
import type { Program } from './support/program.ts';
import { startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { createReviewer, startWebhook, type RunningWebhook } from './support/webhook.ts';

// npm run pull-secrets-scale [-- SECRETS NAMESPACES]: measures the cost of many pull secrets, on a
// real API server: memory of webhook and registry, their time until ready, and reviews a second,
// with the processor time of each. It compares them with two webhooks that read no Secret: one that
// does not rewrite private images of pods with pull secrets (`skip`, the default), and one that
// rewrites as many images (`rewrite`). As the chart configures them, all three webhooks follow the
// DaemonSet of the agents. Default: 2,000 Secrets in 200 namespaces.

const SECRETS = Number(process.argv[2] ?? 2000);
const NAMESPACES = Number(process.argv[3] ?? 200);
/** Short turns, so that each webhook meets the same disturbances. */
const TURNS = 15;
const TURN_MS = 1000;
const WARM_UP_MS = 5000;
const CONNECTIONS = 16;

await using stack = new AsyncDisposableStack();
const { path } = stack.use(await temporaryDirectory());
const cluster = stack.use(await startControlPlane());
const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, connections: CONNECTIONS });
stack.defer(() => dispatcher.destroy());

async function call(method: 'POST' | 'PATCH', path: string, object: unknown): Promise<void> {
  const type = method === 'POST' ? 'application/json' : 'application/merge-patch+json';
  const headers = { authorization: 'Bearer admin-token', 'content-type': type };
  const { statusCode, body } = await request(cluster.url + path, { method, headers, body: JSON.stringify(object), dispatcher });
  const text = await body.text();
  if (statusCode >= 300) throw new Error(text);
}

/** A DaemonSet, of which one pod is ready on one node. */
async function createAgents(): Promise<{ namespace: string; daemonSet: string }> {
  const path = '/apis/apps/v1/namespaces/default/daemonsets';
  const labels = { app: 'agents' };
  const template = { metadata: { labels }, spec: { containers: [{ name: 'agent', image: 'agent' }] } };
  await call('POST', path, { metadata: { name: 'agents' }, spec: { selector: { matchLabels: labels }, template } });
  const status = { currentNumberScheduled: 1, numberMisscheduled: 0, desiredNumberScheduled: 1, numberReady: 1 };
  await call('PATCH', `${path}/agents/status`, { status });
  return { namespace: 'default', daemonSet: 'agents' };
}

const namespaces = Array.from({ length: NAMESPACES }, (_, n) => `team-${n}`);
await inParallel(namespaces, CONNECTIONS, (name) => call('POST', '/api/v1/namespaces', { metadata: { name } }));
await inParallel(
  Array.from({ length: SECRETS }, (_, n) => n),
  CONNECTIONS,
  (n) => {
    const auths = { 'ghcr.io/acme': { auth: Buffer.from(`robot-${n}:${'p'.repeat(40)}`).toString('base64') } };
    const data = { '.dockerconfigjson': Buffer.from(JSON.stringify({ auths })).toString('base64') };
    const metadata = { name: `pull-${Math.floor(n / NAMESPACES)}` };
    return call('POST', `/api/v1/namespaces/${namespaces[n % NAMESPACES]}/secrets`, {
      type: 'kubernetes.io/dockerconfigjson',
      metadata,
      data,
    });
  },
);

const keyFile = join(path, 'key');
await writeFile(keyFile, 'a key of 16 characters and more');
const reading = { pullSecrets: { allNamespaces: true, keyFile } };
const env = { KUBECONFIG: cluster.kubeconfig };
const reviewer = stack.use(await createReviewer(path));
const agents = await createAgents();

async function timed<T extends Program>(start: () => Promise<T>): Promise<{ program: T; seconds: number }> {
  const started = performance.now();
  const program = stack.use(await start());
  return { program, seconds: (performance.now() - started) / 1000 };
}
const plainWebhook = await timed(() => startWebhook({ tls: reviewer.tls, agents }, env));
const rewritingWebhook = await timed(() => startWebhook({ tls: reviewer.tls, agents, pullSecrets: 'rewrite' }, env));
const webhook = await timed(() => startWebhook({ tls: reviewer.tls, agents, pullSecrets: 'use' }, env, reading));
const plainRegistry = await timed(() => startRegistry({}, { env }));
const registry = await timed(() => startRegistry({}, { env }, reading));

const object = {
  metadata: { labels: { app: 'web' } },
  spec: {
    initContainers: [{ name: 'migrate', image: 'ghcr.io/acme/app:1.2.3' }],
    containers: [
      { name: 'web', image: 'nginx:1.27' },
      { name: 'sidecar', image: 'quay.io/acme/sidecar:1' },
    ],
    imagePullSecrets: [{ name: 'pull-1' }],
  },
};
const review = JSON.stringify({ request: { uid: 'u', operation: 'CREATE', namespace: 'team-7', object } });

/** Reviews a second, and microseconds of processors for each. */
async function measure(target: RunningWebhook, milliseconds: number): Promise<{ rate: number; cpu: number }> {
  const before = await processorSeconds(target.pid);
  const started = performance.now();
  let count = 0;
  const ask = async (): Promise<void> => {
    for (; performance.now() - started < milliseconds; count++) await reviewer.post(target, review);
  };
  await Promise.all(Array.from({ length: CONNECTIONS }, ask));
  const seconds = (performance.now() - started) / 1000;
  return { rate: count / seconds, cpu: (1e6 * ((await processorSeconds(target.pid)) - before)) / count };
}
const contestants = { skip: plainWebhook.program, rewrite: rewritingWebhook.program, use: webhook.program };
type Contestant = keyof typeof contestants;
const names = Object.keys(contestants) as Contestant[];
const measured: Record<Contestant, { rate: number; cpu: number }[]> = { skip: [], rewrite: [], use: [] };
for (const name of names) {
  const rewrites = async (): Promise<boolean> => (await reviewer.post(contestants[name], review)).response.patch !== undefined;
  await until(rewrites, `${name} has seen the agents`);
  await measure(contestants[name], WARM_UP_MS);
}
for (let turn = 0; turn < TURNS; turn++) {
  const order = turn % 2 === 0 ? names : names.toReversed();
  for (const name of order) measured[name].push(await measure(contestants[name], TURN_MS));
}
await delay(2000);
const known = await (await fetch(`${webhook.program.admin}/metrics`)).text();
const mib = async ({ program }: { program: Program }): Promise<number> => Math.round((await program.memory()).resident / 2 ** 20);
const row = async (
  name: string,
  plain: { program: Program; seconds: number },
  full: { program: Program; seconds: number },
): Promise<string> =>
  `${name}: ready after ${full.seconds.toFixed(1)} s (without ${plain.seconds.toFixed(1)} s), ${await mib(full)} MiB resident (without ${await mib(plain)} MiB)\n`;
process.stdout.write(`${SECRETS} Secrets in ${NAMESPACES} namespaces; known: ${/pull_secrets\{state="usable"\} (\d+)/.exec(known)?.[1]}\n`);
process.stdout.write(await row('webhook', plainWebhook, webhook));
process.stdout.write(await row('registry', plainRegistry, registry));
for (const name of names) {
  const of = (what: 'rate' | 'cpu'): string => median(measured[name].map((turn) => turn[what])).toFixed(what === 'cpu' ? 1 : 0);
  const ratio = (what: 'rate' | 'cpu'): string =>
    median(measured.use.map((own, turn) => own[what] / (measured[name][turn]?.[what] ?? NaN))).toFixed(3);
  process.stdout.write(
    `webhook.pullSecrets: ${name}: ${of('rate')} reviews a second, ${of('cpu')} µs of processors for each; use has ${ratio('rate')} times the reviews, ${ratio('cpu')} times the processor time\n`,
  );
}
