import { parseArgs } from 'node:util';
import { Agent, request } from 'undici';
import { startBothWays, type Rewriting, type Way } from '../test/support/both-ways.ts';
import { toolPath } from '../test/tools/tools.ts';
import { processorSeconds } from './processor-time.ts';
import { median } from './turns.ts';

// npm run bench:rewriting -- [--version 1.37] [--turns 5] [--seconds 1]: measures how many pods per
// second a real API server admits without rewriting, with the policy and with the webhook, for pods
// with 1, 5 and 40 containers, and 1 and 16 requests at a time; and the same for changes of a pod's
// labels. The three take turns. Etcd, API server, webhook and this client share the machine. The
// requests are dry runs, so that admission is measured and not etcd.

const { values } = parseArgs({
  options: {
    version: { type: 'string', default: '1.36' },
    turns: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '1' },
  },
});
const [TURNS, SECONDS] = [Number(values.turns), Number(values.seconds)];
const WAYS = ['none', 'policy', 'webhook'] as const satisfies Way[];
const CONTAINERS = [1, 5, 40];
const AT_ONCE = [1, 16];

interface Taken {
  perSecond: number;
  /** Milliseconds. */
  p50: number;
  p99: number;
  /** Processor time for one pod, in ms. */
  apiServer: number;
  webhook: number;
}

interface Cell {
  name: string;
  atOnce: number;
  method: 'POST' | 'PUT';
  path: string;
  /** In JSON. */
  body: string;
}

function podOf(containers: number, name = `pod-of-${containers}`): object {
  const names = ['nginx:1.27', 'ghcr.io/acme/app:1.2.3', 'quay.io/acme/sidecar:v4', 'registry.k8s.io/pause:3.10', 'redis:8.4'];
  const of = (index: number) => ({ name: `c${index}`, image: names[index % names.length] });
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, labels: { app: 'web' } },
    spec: { containers: Array.from({ length: containers }, (_, index) => of(index)) },
  };
}

const PODS = '/api/v1/namespaces/default/pods';

async function cellsOf(ways: Rewriting): Promise<Cell[]> {
  const creations = CONTAINERS.flatMap((containers) =>
    AT_ONCE.map((atOnce): Cell => {
      const name = `${containers === 1 ? '1 container' : `${containers} containers`}, ${atOnce} at a time`;
      return { name, atOnce, method: 'POST', path: PODS, body: JSON.stringify(podOf(containers)) };
    }),
  );
  const { body } = await ways.send({ way: 'policy', namespace: 'default', object: podOf(5, 'labelled'), dryRun: false });
  const labelled = { ...body, metadata: { ...(body['metadata'] as object), labels: { app: 'web', changed: 'yes' } } };
  const path = `${PODS}/labelled`;
  return [...creations, { name: 'labels of a pod of 5, 16 at a time', atOnce: 16, method: 'PUT', path, body: JSON.stringify(labelled) }];
}

await using stack = new AsyncDisposableStack();
const ways = stack.use(await startBothWays(await toolPath(values.version === '1.37' ? 'kube-apiserver-1.37' : 'kube-apiserver-1.36'), {}));
const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, connections: 16 });
stack.defer(() => dispatcher.destroy());

async function send(cell: Cell, way: Way): Promise<void> {
  const headers = { authorization: `Bearer ${way}-token`, 'content-type': 'application/json' };
  const { method, body } = cell;
  const answer = await request(`${ways.plane.url}${cell.path}?dryRun=All`, { method, body, headers, dispatcher });
  if (answer.statusCode >= 300) throw new Error(`${cell.name}, ${way}: ${answer.statusCode} ${await answer.body.text()}`);
  await answer.body.dump({ limit: 2 ** 20 });
}

async function take(cell: Cell, way: Way): Promise<Taken> {
  const pids = { apiServer: ways.plane.apiServerPid(), webhook: ways.webhook.current().pid };
  const [apiServer, webhook] = [await processorSeconds(pids.apiServer), await processorSeconds(pids.webhook)];
  const times: number[] = [];
  const started = performance.now();
  const worker = async (): Promise<void> => {
    while (performance.now() - started < SECONDS * 1000) {
      const before = performance.now();
      await send(cell, way);
      times.push(performance.now() - before);
    }
  };
  await Promise.all(Array.from({ length: cell.atOnce }, worker));
  const seconds = (performance.now() - started) / 1000;
  times.sort((one, other) => one - other);
  const quantile = (share: number): number => times[Math.min(times.length - 1, Math.floor(share * times.length))] ?? Number.NaN;
  return {
    perSecond: times.length / seconds,
    p50: quantile(0.5),
    p99: quantile(0.99),
    apiServer: (1000 * ((await processorSeconds(pids.apiServer)) - apiServer)) / times.length,
    webhook: (1000 * ((await processorSeconds(pids.webhook)) - webhook)) / times.length,
  };
}

const cells = await cellsOf(ways);
const taken = new Map<string, Taken[]>();
let reviewsOfLabels = 0;
for (let turn = 0; turn <= TURNS; turn++) {
  for (const cell of cells) {
    for (const way of WAYS) {
      const before = await ways.reviews();
      const measured = await take(cell, way);
      if (cell.method === 'PUT') reviewsOfLabels += (await ways.reviews()) - before;
      if (turn === 0) continue; // it warms up
      const key = `${cell.name} ${way}`;
      taken.set(key, [...(taken.get(key) ?? []), measured]);
    }
  }
}

const of = (cell: Cell, way: Way, field: keyof Taken): number[] => (taken.get(`${cell.name} ${way}`) ?? []).map((one) => one[field]);
const show = (value: number, digits: number): string => value.toFixed(digits);
console.log(`Kubernetes ${values.version}, medians of ${TURNS} turns of ${SECONDS} s\n`);
console.log('| | | pods a second | p50, p99 in ms | ms of CPU a pod: API server + webhook |\n|---|---|---|---|---|');
for (const cell of cells) {
  for (const way of WAYS) {
    const middle = (field: keyof Taken, digits: number): string => show(median(of(cell, way, field)), digits);
    const cpu = `${middle('apiServer', 2)} + ${middle('webhook', 2)}`;
    console.log(
      `| ${way === 'none' ? cell.name : ''} | ${way} | ${middle('perSecond', 0)} | ${middle('p50', 1)}, ${middle('p99', 1)} | ${cpu} |`,
    );
  }
}
console.log('\npolicy divided by webhook: pods a second, CPU of both programs');
for (const cell of cells) {
  const cpu = (way: Way): number[] =>
    of(cell, way, 'apiServer').map((spent, turn) => spent + (of(cell, way, 'webhook')[turn] ?? Number.NaN));
  const rates = ratios(of(cell, 'policy', 'perSecond'), of(cell, 'webhook', 'perSecond'));
  console.log(`${cell.name}: ${rates}, ${ratios(cpu('policy'), cpu('webhook'))}`);
}
console.log(`reviews that changes of labels cost the webhook: ${reviewsOfLabels}`);

/** The median of the turns' quotients, with the smallest and the largest. */
function ratios(ones: readonly number[], others: readonly number[]): string {
  const all = ones.map((one, turn) => one / (others[turn] ?? Number.NaN));
  return `${show(median(all), 2)} (${show(Math.min(...all), 2)} to ${show(Math.max(...all), 2)})`;
}
