import { join } from 'node:path';
import { startDistribution, type DistributionOptions } from '../../test/support/distribution.ts';
import { startAgent, startRegistry, type ServingProgram } from '../../test/support/program.ts';
import { freePort, temporaryDirectory } from '../../test/support/temporary.ts';
import { startVersitygw, type Versitygw } from '../../test/support/versitygw.ts';
import { startLines, type Machine } from '../lines.ts';
import { load } from '../load.ts';
import { processorSeconds } from '../processor-time.ts';
import type { Measurement, Row } from '../row.ts';
import { openS3, signedUrls, untilStored } from '../s3.ts';
import { direct, startUpstream } from '../servers.ts';

const NODES = 4;
const SIZE = 64 * 2 ** 20;
/** As many as two processors can carry for all nodes together: agents hash what they pass on. */
const MEGABITS = 160;

/** Each node reads one URL.
 *  @returns bytes per second, from the start until the last one has all */
async function readOnNodes(nodes: readonly Machine[], url: (index: number) => string, turn: number): Promise<number> {
  const started = performance.now();
  const plan = (index: number) => ({ clients: [{ urls: [url(index)] }], verify: turn === 0 });
  const each = await Promise.all(nodes.map(({ enter }, index) => load({ ...plan(index), enter })));
  return (1000 * each.reduce((sum, { bytes }) => sum + bytes, 0)) / (performance.now() - started);
}

/** Needs root and iproute2. S3 and the upstream have unlimited bandwidth; the registry,
 *  Distribution and each node have a line of their own. Distribution sends the bytes itself, as the
 *  other rows have it: with its redirects to S3, its clients read from S3 directly. */
const lines: Row = {
  name: 'warm-blob-s3-lines',
  title: {
    en: `Warm blobs in S3: ${NODES} nodes, each with its own 64 MiB blob and ${MEGABITS} Mbit/s, as the registry and Distribution have`,
    zh: `仅在 S3 中的 blob：${NODES} 个节点各拉取一个 64 MiB blob，节点、registry、Distribution 各有 ${MEGABITS} Mbit/s 带宽`,
  },
  unit: 'bytes/s',
  targets: [
    { of: 'agents', against: 's3', atLeast: 0.9 },
    { of: 'agents', against: 'distribution', atLeast: 1.3 },
  ],
  async open(stack) {
    const { outside, machines } = stack.use(await startLines(NODES + 2, MEGABITS));
    const [registryMachine, otherMachine, ...nodes] = machines;
    if (registryMachine === undefined || otherMachine === undefined) throw new Error('no machine');
    const upstream = await startUpstream(stack, { host: `${outside}:${await freePort()}` });
    const gateway = stack.use(await startVersitygw({ host: outside }));
    const digests = await Promise.all(nodes.map(() => upstream.addBlob(SIZE)));
    const registry = await startOnLine(stack, { machine: registryMachine, gateway, upstream: upstream.url });
    const other = stack.use(await startDistribution({ ...onLine(otherMachine), proxyOf: upstream.url, s3: gateway }));
    const agents = await startAgents(stack, nodes, { registry: registry.url, upstream: upstream.url });
    const { pathname } = new URL(direct(upstream).blob(''));
    const path = pathname.replace('/v2/', '/v2/dockerhub/');
    const urls = {
      agents: (n: number): string => `${agents[n]?.url ?? ''}${path}${digests[n] ?? ''}`,
      distribution: (n: number): string => `${other.url}${pathname}${digests[n] ?? ''}`,
    };
    await load({
      clients: digests.flatMap((digest, n) => [{ urls: [`${registry.url}${path}${digest}`] }, { urls: [urls.distribution(n)] }]),
    });
    const store = openS3(stack, gateway);
    for (const digest of digests) await untilStored(store, digest);
    const signed = await signedUrls(store, digests);
    return {
      agents: (turn) => measured(agents, () => readOnNodes(nodes, urls.agents, turn)),
      s3: (turn) => readOnNodes(nodes, (n) => signed.get(digests[n] ?? '') ?? '', turn),
      distribution: (turn) => readOnNodes(nodes, urls.distribution, turn),
    };
  },
};

async function startOnLine(
  stack: AsyncDisposableStack,
  { machine, gateway, upstream }: { machine: Machine; gateway: Versitygw; upstream: string },
): Promise<ServingProgram> {
  const { path } = stack.use(await temporaryDirectory());
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = gateway;
  const registry = {
    listen: `${machine.address}:5000`,
    admin: `${machine.address}:5001`,
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey, redirect: { endpoint, clients: 'agents' } } },
    local: { directory: join(path, 'data'), maxSize: '20GiB' },
    upstreams: { dockerhub: { url: upstream } },
  };
  return stack.use(await startRegistry(registry, { enter: machine.enter }));
}

/** Distribution, without an access log. */
function onLine({ address, enter }: Machine): DistributionOptions {
  return { configuration: { log: { level: 'error', accesslog: { disabled: true } } }, host: address, port: 5000, enter };
}

async function startAgents(
  stack: AsyncDisposableStack,
  nodes: readonly Machine[],
  { registry, upstream }: { registry: string; upstream: string },
): Promise<ServingProgram[]> {
  const agents: ServingProgram[] = [];
  for (const { address, enter } of nodes) {
    // Only the check that it is ready comes from outside.
    const own = { listen: '127.0.0.1:25000', admin: `${address}:25001`, registry, fallback: false };
    agents.push(stack.use(await startAgent(own, { registry: { upstreams: { dockerhub: { url: upstream } } } }, { enter })));
  }
  return agents;
}

/** With the processor time of all agents. */
async function measured(agents: readonly ServingProgram[], work: () => Promise<number>): Promise<Measurement> {
  const used = async (): Promise<number> => {
    const each = await Promise.all(agents.map(({ pid }) => processorSeconds(pid)));
    return each.reduce((sum, seconds) => sum + seconds, 0);
  };
  const before = await used();
  const value = await work();
  return { value, cpuSeconds: (await used()) - before };
}

export const lineRows = [lines];
