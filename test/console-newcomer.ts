// npm run newcomer: a console in whose world five questions have definite answers, to time somebody
// who has never seen it. Prints the address, the questions and the answers, and runs until SIGINT.
import { once } from 'node:events';
import { buildConsole } from '../console/build.ts';
import type { Images } from '../console/data/model.ts';
import type { ClashReport, WebhookReport } from '../src/console/api/places.ts';
import type { Overview } from '../src/console/api/overview.ts';
import { startConsoleScene, USER, type ConsoleScene } from './support/console.ts';
import { startControlPlane, type ControlPlane } from './support/control-plane.ts';
import { makeImage } from './support/image.ts';
import { until } from './support/until.ts';

const MiB = 2 ** 20;
const NODE = '日本 02 <b>BGP</b>';
const WEBHOOK = { watchPods: '1s', exclude: { namespaces: ['kube-system'] } };
const SLOW = { repository: 'ghcr/acme/shop', tag: '2.4' };
/** How long GHCR takes to answer, and bytes a second for each of the registry's connections. */
const SLOW_ANSWER_MS = 5000;
const SLOW_RATE = 5000;

const rewritten = (from: string, to: string) => ({
  annotations: { 'kube-registry/original-images': JSON.stringify({ main: from }) },
  image: `127.0.0.1:25000/${to}`,
});
const PODS = {
  'web-5d8f': { namespace: 'shop', ...rewritten('nginx:1.27', 'dockerhub/library/nginx:1.27') },
  'cache-0': { namespace: 'shop', ...rewritten('redis:8.4', 'dockerhub/library/redis:8.4') },
  'legacy-cron': { namespace: 'shop', image: 'nginx:1.25' },
  'report-builder': { namespace: 'billing', image: 'nginx:1.27', labels: { 'kube-registry/rewrite': 'false' } },
  'ledger-1': { namespace: 'billing', image: 'ghcr.io/cloudnative-pg/postgresql:18.1', labels: { 'cnpg.io/cluster': 'ledger' } },
  'coredns-7c5': { namespace: 'kube-system', image: 'registry.k8s.io/coredns/coredns:v1.12.0' },
  scanner: { namespace: 'billing', image: 'registry.intern.example/security/scanner:3' },
} satisfies Record<string, { namespace: string; image: string; labels?: Record<string, string>; annotations?: Record<string, string> }>;

await using stack = new AsyncDisposableStack();
const plane = stack.use(await startControlPlane({ apiServer: ['--disable-admission-plugins=ServiceAccount,Priority'] }));
await createPods(plane);
await buildConsole();
const scene = stack.use(await startConsoleScene({ kubeconfig: plane.kubeconfig, webhook: WEBHOOK }));
const { admin } = scene.registry;
await fill(scene);
await chooseNode(NODE);
await until(async () => (await ask<Images>('/api/images?limit=1')).total >= 4, 'the images are listed');
await until(async () => (await ask<WebhookReport>('/api/webhook')).takenAt !== null, 'the pods are listed');
process.stdout.write(`${admin}/\n\n${await questions()}\n`);
await once(process, 'SIGINT');

async function ask<Answer>(path: string): Promise<Answer> {
  return (await (await fetch(admin + path)).json()) as Answer;
}

async function createPods({ kubectl }: ControlPlane): Promise<void> {
  for (const namespace of ['shop', 'billing']) await kubectl(['create', 'namespace', namespace]);
  for (const [name, { image, ...metadata }] of Object.entries(PODS)) {
    const spec = { containers: [{ name: 'main', image }] };
    await kubectl(['create', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name, ...metadata }, spec }));
  }
}

/** Pulls what the world has stored, and begins to pull an image whose upstream is slow. */
async function fill({ ghcr, images, pull }: ConsoleScene): Promise<void> {
  const shop = makeImage({ seed: 'shop', architectures: ['amd64'], layers: [64 * MiB] });
  ghcr.add('acme/shop', SLOW.tag, shop);
  ghcr.behave = ({ path }) => ({ latency: SLOW_ANSWER_MS, ...(path.includes('/acme/shop/blobs/') ? { rate: SLOW_RATE } : {}) });
  await pull('dockerhub/library/nginx', '1.27', images.nginx);
  await pull('dockerhub/library/redis', '8.4', images.redis);
  await pull('ghcr/cloudnative-pg/postgresql', '18.1', images.postgresql);
  const slow = pull(SLOW.repository, SLOW.tag, shop);
  slow.catch(() => undefined); // the world has ended
  await until(async () => (await ask<Overview>('/api/overview')).runningDownloads > 0, 'the slow download runs');
}

async function chooseNode(node: string): Promise<void> {
  const headers = { 'x-kube-registry-console': '1', 'content-type': 'application/json' };
  const post = (path: string, body: object, more: Record<string, string> = {}) =>
    fetch(admin + path, { method: 'POST', headers: { ...headers, ...more }, body: JSON.stringify(body) });
  const session = await post('/api/session', { user: USER.name, password: USER.password });
  const cookie = session.headers.getSetCookie()[0]?.split(';')[0] ?? '';
  await until(async () => (await post('/api/actions/choose-node', { node }, { cookie })).ok, 'the node can be chosen');
}

/** The questions, each with its answer as the API has it now. */
async function questions(): Promise<string> {
  const { rateLimits } = await ask<Overview>('/api/overview');
  const [largest] = (await ask<Images>('/api/images?sort=size&order=desc&limit=1')).images;
  const { chosen, nodes } = await ask<ClashReport>('/api/clash');
  const { images } = await ask<WebhookReport>('/api/webhook?rewritten=no&limit=100');
  const delay = nodes.find(({ name }) => name === chosen)?.delayMs;
  return [
    [
      'Why is ghcr.io/acme/shop:2.4 slow now?',
      `upstream ghcr takes ${SLOW_ANSWER_MS / 1000} s to answer, and sends some 20 KiB/s; no proxy is in the way`,
    ],
    ['Which image takes the most space?', `${largest?.name}: ${largest?.size} bytes`],
    [
      'What does the upstream still allow?',
      rateLimits.map(({ upstream, remaining, limit }) => `${upstream}: ${remaining} of ${limit} pulls`).join(),
    ],
    ['Which node of the clash proxy is used?', `${chosen}, delay ${delay} ms`],
    ['Which pods were not rewritten, and why?', images.map(({ namespace, pod, reason }) => `${namespace}/${pod}: ${reason}`).join('; ')],
  ]
    .map(([question, answer], index) => `${index + 1}. ${question}\n   ${answer}\n`)
    .join('');
}
