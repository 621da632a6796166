import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hash } from '@node-rs/bcrypt';
import { startClash, startSubscriptionServer, type ClashProgram } from './clash.ts';
import { makeImage, type TestImage } from './image.ts';
import { startAirport } from './mihomo.ts';
import { startRegistry, type ServingProgram } from './program.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './scripted-upstream.ts';
import { temporaryDirectory } from './temporary.ts';
import { createReviewer, startWebhook } from './webhook.ts';

const MiB = 2 ** 20;

export const USER = { name: 'ada', password: 'correct horse battery staple' };
/** Its download takes minutes. */
export const SLOW_IMAGE = 'docker.io/pytorch/pytorch:2.9';
/** Names with everything that the grammar allows, and labels that try to be HTML. */
export const HOSTILE = {
  repository: 'a0.b_c__d-e---f/0/x.y_z/img-src-x-onerror-alert-1',
  tag: '_.-script.alert-1.-script-',
  labels: {
    '<img src=x onerror="document.title=1">': '<script>document.title=1</script>',
    '\'"--><b>': '</dd><svg onload=document.title=1>',
    invisible: 'a\u202eb\u0000c\u200d',
    long: 'x'.repeat(3000),
  },
};

export interface ConsoleScene extends AsyncDisposable {
  registry: ServingProgram;
  clash: ClashProgram;
  hub: ScriptedUpstream;
  ghcr: ScriptedUpstream;
  /** Fetches an image's first platform from the registry, as a node does. */
  pull: (repository: string, tag: string, image: TestImage) => Promise<void>;
  /** Starts a download that runs until the scene ends. */
  beginSlowDownload: () => void;
  images: Record<'nginx' | 'redis' | 'postgresql' | 'pytorch' | 'hostile', TestImage>;
}

export interface ConsoleSceneOptions {
  /** The cluster whose pods the console lists. */
  kubeconfig?: string;
  /** The configuration of the webhook. */
  webhook?: Record<string, unknown>;
}

/** A registry with everything that its console shows: two upstreams with traffic, one of them
 *  behind a real clash and its airports, a webhook, and users who may sign in. */
export async function startConsoleScene({ kubeconfig, webhook: rules = {} }: ConsoleSceneOptions = {}): Promise<ConsoleScene> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const users = join(path, 'users');
  await writeFile(users, `${USER.name}:${await hash(USER.password, 4)}\nbob:${await hash(USER.password, 4)}\n`);
  const [hub, ghcr, clash] = await Promise.all([
    startScriptedUpstream().then((own) => stack.use(own)),
    startScriptedUpstream().then((own) => stack.use(own)),
    startAirports(stack),
  ]);
  const reviewer = stack.use(await createReviewer(path));
  const webhook = stack.use(await startWebhook({ tls: reviewer.tls, ...rules }));
  const registry = stack.use(
    await startRegistry(
      {
        storage: { filesystem: { directory: join(path, 'data') } },
        upstreams: {
          dockerhub: { url: hub.url.replace('127.0.0.1', 'registry-1.docker.io'), proxy: clash.proxy },
          ghcr: { url: ghcr.url },
        },
        policy: { deny: ['docker.io/grafana/*'] },
        console: {
          users,
          inventoryInterval: '1s',
          clash: clash.admin,
          webhook: webhook.admin,
          grafana: 'https://grafana.example.com/d/kube-registry',
          pods: kubeconfig !== undefined,
        },
      },
      kubeconfig === undefined ? {} : { env: { KUBECONFIG: kubeconfig } },
      { webhook: rules },
    ),
  );
  const images = fillUpstreams(hub, ghcr);
  const pull = (repository: string, tag: string, image: TestImage) => pullFrom(registry, { repository, tag, image });
  const owned = stack.move();
  return {
    registry,
    clash,
    hub,
    ghcr,
    images,
    pull,
    beginSlowDownload() {
      pull('dockerhub/pytorch/pytorch', '2.9', images.pytorch).catch(() => undefined); // the scene has ended
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Two nodes; the second one's subscription has hardly any traffic left. */
async function startAirports(stack: AsyncDisposableStack): Promise<ClashProgram> {
  const hosts = { 'registry-1.docker.io': '127.0.0.1', 'check.example': '127.0.0.1' };
  const [near, far, site, subscriptions] = await Promise.all([
    startAirport({ hosts, name: '香港 01 | IEPL' }),
    startAirport({ hosts, name: '日本 02 <b>BGP</b>' }),
    startScriptedUpstream(),
    startSubscriptionServer(),
  ]);
  for (const own of [near, far, site, subscriptions]) stack.use(own);
  subscriptions.answers.set('/airport', JSON.stringify({ proxies: [near, far].map(({ node }) => node) }));
  return stack.use(
    await startClash({
      subscriptions: [{ name: 'airport', url: subscriptions.url('/airport'), interval: '1h' }],
      healthCheck: { url: `${site.url.replace('127.0.0.1', 'check.example')}/v2/`, interval: '2s' },
    }),
  );
}

function fillUpstreams(hub: ScriptedUpstream, ghcr: ScriptedUpstream): ConsoleScene['images'] {
  const images = {
    nginx: makeImage({ seed: 'nginx', layers: [MiB, 3 * MiB], labels: { maintainer: 'NGINX Docker Maintainers' } }),
    redis: makeImage({ seed: 'redis', layers: [MiB] }),
    postgresql: makeImage({ seed: 'postgresql', layers: [4 * MiB, 5 * MiB] }),
    pytorch: makeImage({ seed: 'pytorch', architectures: ['amd64'], layers: [48 * MiB] }),
    hostile: makeImage({ seed: 'hostile', layers: [64 * 1024], labels: HOSTILE.labels }),
  };
  hub.add('library/nginx', '1.27', images.nginx);
  hub.add('library/nginx', 'stable', images.nginx);
  hub.add('library/redis', '8.4', images.redis);
  hub.add('pytorch/pytorch', '2.9', images.pytorch);
  hub.add(HOSTILE.repository, HOSTILE.tag, images.hostile);
  ghcr.add('cloudnative-pg/postgresql', '18.1', images.postgresql);
  let left = 70;
  hub.behave = ({ path, method }) => {
    if (path.includes('/manifests/') && method === 'GET') left--;
    const limits = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': `${left};w=21600` };
    return { headers: limits, ...(path.startsWith('/v2/pytorch/pytorch/blobs/') ? { rate: 120_000 } : {}) };
  };
  return images;
}

async function pullFrom({ url }: ServingProgram, wanted: { repository: string; tag: string; image: TestImage }): Promise<void> {
  const { repository, tag, image } = wanted;
  const [platform] = image.platforms;
  const blobs = platform === undefined ? [] : [platform.config, ...platform.layers].map(({ digest }) => `blobs/${digest}`);
  for (const path of [`manifests/${tag}`, `manifests/${platform?.manifest.digest ?? ''}`, ...blobs]) {
    const response = await fetch(`${url}/v2/${repository}/${path}`);
    await response.arrayBuffer();
    if (response.status !== 200) throw new Error(`${repository} ${path}: ${response.status}`);
  }
}
