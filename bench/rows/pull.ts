import { startContainerd } from '../../test/support/containerd.ts';
import { makeImage } from '../../test/support/image.ts';
import { startAgent } from '../../test/support/program.ts';
import type { Row, Turn } from '../row.ts';
import { startOther, startOwn, startUpstream, type Contestant } from '../servers.ts';

const MiB = 2 ** 20;
/** The sizes of its 12 layers in bytes: a few large and many small ones, as in real images. */
const LAYERS = [30, 24, 12, 8, 5, 3, 2, 1, 0.5, 0.25, 0.1, 0.01].map((size) => Math.round(size * MiB));
/** Cold pulls need one image per turn, so this is the maximum number of turns. */
const IMAGES = 10;

/** `ctr images pull` into an empty containerd, of an image that is not cached (`cold`) or cached;
 *  if cached, also through an agent in front of the registry. */
function row(temperature: 'cold' | 'warm', title: Row['title']): Row {
  return {
    name: `pull-${temperature}`,
    title,
    unit: 'seconds',
    targets: [
      { of: 'registry', against: 'distribution', atMost: 1 },
      ...(temperature === 'warm' ? [{ of: 'agent', against: 'distribution', atMost: 1.2 }] : []),
    ],
    async open(stack) {
      const count = temperature === 'cold' ? IMAGES : 1;
      const images = Array.from({ length: count }, (_, n) => makeImage({ architectures: ['amd64'], layers: LAYERS, seed: `pull ${n}` }));
      const upstream = await startUpstream(stack, { images: Object.fromEntries(images.map((image, n) => [`v${n}`, image])) });
      const [own, other] = [await startOwn(stack, { upstream }), await startOther(stack, { upstream })];
      const containerd = stack.use(await startContainerd({ release: '2.4' }));
      const pulling =
        ({ image }: Contestant): Turn =>
        async (turn) => {
          if (temperature === 'cold' && turn >= IMAGES) throw new Error(`there are images for ${IMAGES - 1} turns`);
          const name = `${image}:v${temperature === 'cold' ? turn : 0}`;
          const started = performance.now();
          await containerd.ctr('images', 'pull', '--plain-http', '--platform', 'linux/amd64', name);
          const seconds = (performance.now() - started) / 1000;
          await containerd.ctr('images', 'rm', '--sync', name);
          return seconds;
        };
      const contestants = { registry: pulling(own), distribution: pulling(other) };
      if (temperature === 'cold') return contestants;
      const upstreams = { dockerhub: { url: upstream.url } };
      const agent = stack.use(await startAgent({ registry: own.program.url }, { registry: { upstreams } }));
      return { ...contestants, agent: pulling({ ...own, image: own.image.replace(own.host, agent.host) }) };
    },
  };
}

export const pullRows = [
  row('cold', {
    en: '`ctr images pull` of an image with 12 layers (86 MiB), cold',
    zh: '用 `ctr images pull` 拉取 12 层镜像（86 MiB），未缓存',
  }),
  row('warm', {
    en: '`ctr images pull` of an image with 12 layers (86 MiB), warm',
    zh: '用 `ctr images pull` 拉取 12 层镜像（86 MiB），已缓存',
  }),
];
