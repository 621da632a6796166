import { makeImage } from '../../test/support/image.ts';
import { startAgent } from '../../test/support/program.ts';
import { load } from '../load.ts';
import { processorSeconds } from '../processor-time.ts';
import type { Measurement, Row } from '../row.ts';
import { startOwn, startUpstream } from '../servers.ts';

/** Many turns: both contestants then meet the same disturbances, and the median of their
 *  ratios is steady. */
const TURNS = 101;
const CLIENTS = 4;
/** Pulls of each client in one turn. */
const PULLS = 60;
/** In the first turn, so that Node has compiled all that runs often. */
const WARM_UP_PULLS = 400;
/** The number of pulls for which processor time is reported, so that the figure has more than one
 *  digit. */
const REPORTED_PULLS = 1000;

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
    const host = upstream.host.replace(':', '_');
    const configured = 'u'.repeat(host.length); // so that the paths have the same length
    const registry = { upstreams: { [configured]: { url: upstream.url, hosts: ['upstream.example'] } }, otherHosts: [upstream.host] };
    const own = await startOwn(stack, { upstream, rest: registry });
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
        const repeated = Array.from({ length: turn === 0 ? WARM_UP_PULLS : PULLS }, () => through).flat();
        const { requests, seconds } = await load({ clients: Array.from({ length: CLIENTS }, () => ({ urls: repeated })) });
        const pulls = requests / urls.length;
        return { value: pulls / seconds, cpuSeconds: (REPORTED_PULLS * ((await used()) - before)) / pulls };
      };
    return { host: pulling(host), configured: pulling(configured) };
  },
};

export const hostRows = [host];
