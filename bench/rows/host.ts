import { makeImage } from '../../test/support/image.ts';
import { startAgent } from '../../test/support/program.ts';
import { load } from '../load.ts';
import { processorSeconds } from '../processor-time.ts';
import type { Measurement, Row } from '../row.ts';
import { startOwn, startUpstream } from '../servers.ts';

/** Many short turns: each contestant then meets the same disturbances, and the median of their
 *  ratios is steady. */
const TURNS = 41;
const SECONDS = 0.5;
/** Until Node has compiled all that runs often. */
const WARM_UP_SECONDS = 6;
/** The number of pulls over which processor time is measured, so that the figure has more than one
 *  digit. */
const PULLS = 1000;

const host: Row = {
  name: 'warm-host',
  title: {
    en: 'Warm pulls of an image of 4 × 64 KiB through the agent, 4 connections: by its host as a path, and of a configured upstream (CPU: of agent and registry, for 1,000 pulls)',
    zh: '经 agent 拉取已缓存的 4 × 64 KiB 镜像，4 个连接：以主机为路径，与已配置的上游（CPU：agent 与 registry，每 1000 次拉取）',
  },
  unit: 'requests/s',
  turns: TURNS,
  targets: [
    { of: 'host', against: 'configured', atLeast: 1 / 1.02 },
    { of: 'host', against: 'configured', measure: 'cpu', atMost: 1.02 },
  ],
  async open(stack) {
    const image = makeImage({ architectures: ['amd64'], layers: Array.from({ length: 4 }, () => 64 * 1024) });
    const upstream = await startUpstream(stack, { images: { latest: image } });
    const otherHosts = [upstream.host];
    const own = await startOwn(stack, { upstream, rest: { otherHosts } });
    const registry = { upstreams: { dockerhub: { url: upstream.url } }, otherHosts };
    const agent = stack.use(await startAgent({ registry: own.program.url }, { registry }));
    const digests = image.platforms.flatMap(({ config, layers }) => [config, ...layers].map(({ digest }) => digest));
    const urls = [own.manifest('latest'), own.manifest(image.root.digest), ...digests.map(own.blob)];
    const pulling =
      (name: string) =>
      async (turn: number): Promise<Measurement> => {
        const through = urls.map((url) => url.replace(`${own.program.url}/v2/dockerhub`, `${agent.url}/v2/${name}`));
        const pids = [agent.pid, own.program.pid];
        const used = async () => (await Promise.all(pids.map(processorSeconds))).reduce((sum, seconds) => sum + seconds, 0);
        const before = await used();
        const clients = Array.from({ length: 4 }, () => ({ urls: through }));
        const { requests, seconds } = await load({ clients, seconds: turn === 0 ? WARM_UP_SECONDS : SECONDS });
        const pulls = requests / urls.length;
        return { value: pulls / seconds, cpuSeconds: (PULLS * ((await used()) - before)) / pulls };
      };
    return { host: pulling(upstream.host.replace(':', '_')), configured: pulling('dockerhub') };
  },
};

export const hostRows = [host];
