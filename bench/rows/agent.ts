import { startAgent } from '../../test/support/program.ts';
import { throughput } from '../load.ts';
import type { Row } from '../row.ts';
import { startOwn, startUpstream } from '../servers.ts';

const agent: Row = {
  name: 'agent',
  title: {
    en: 'Warm 64 MiB blob through the agent, 4 connections, clients that hash',
    zh: 'registry 前的 agent，已缓存的 64 MiB blob，4 个计算哈希的连接',
  },
  unit: 'bytes/s',
  targets: [{ of: 'agent', against: 'registry', atLeast: 0.8 }],
  async open(stack) {
    const upstream = await startUpstream(stack);
    const digest = await upstream.addBlob(64 * 2 ** 20);
    const own = await startOwn(stack, { upstream });
    const upstreams = { dockerhub: { url: upstream.url } };
    const agent = stack.use(await startAgent({ registry: own.program.url }, { registry: { upstreams } }));
    const urls = { agent: own.blob(digest).replace(own.program.url, agent.url), registry: own.blob(digest) };
    // The clients hash the bytes, as every client of a pull does.
    const reading = (url: string) => (turn: number) => throughput(url, { connections: 4, seconds: 1.5, turn, verify: true });
    return { agent: reading(urls.agent), registry: reading(urls.registry) };
  },
};

export const agentRows = [agent];
