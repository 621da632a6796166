import { glob } from 'node:fs/promises';
import { join } from 'node:path';
import { askAsStranger } from '../../test/support/stranger.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { until } from '../../test/support/until.ts';
import { load, throughput } from '../load.ts';
import { processorSeconds } from '../processor-time.ts';
import type { Row } from '../row.ts';
import { direct, startOwn, startOwnAgent, startUpstream } from '../servers.ts';

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
    const agent = await startOwnAgent(stack, { own, upstream });
    const urls = { agent: own.blob(digest).replace(own.program.url, agent.url), registry: own.blob(digest) };
    // The clients hash the bytes, as every client of a pull does.
    const reading = (url: string) => (turn: number) => throughput(url, { connections: 4, seconds: 1.5, turn, verify: true });
    return { agent: reading(urls.agent), registry: reading(urls.registry) };
  },
};

const STREAM = 100e6;

/** What the process uses to send `url` to four readers of limited speed, in CPU seconds a GB. */
const sharing = (url: string, pid: () => Promise<number>) => async (turn: number) => {
  const before = await processorSeconds(await pid());
  const clients = Array.from({ length: 4 }, () => ({ urls: [url], rate: STREAM }));
  const { bytes } = await load({ clients, seconds: 3, verify: turn === 0 });
  return ((await processorSeconds(await pid())) - before) / (bytes / 1e9);
};

const share: Row = {
  name: 'agent-share',
  title: {
    en: 'CPU seconds per GB of an agent that sends a 64 MiB blob to 4 other nodes at 100 MB/s each; nginx sends the same file',
    zh: 'agent 向 4 个节点各以 100 MB/s 发送 64 MiB blob，每 GB 的 CPU 时间；nginx 发送同一个文件',
  },
  unit: 'seconds',
  targets: [{ of: 'agent', against: 'nginx', atMost: 2 }],
  async open(stack) {
    const upstream = await startUpstream(stack);
    const digest = await upstream.addBlob(64 * 2 ** 20);
    const own = await startOwn(stack, { upstream });
    const { path } = stack.use(await temporaryDirectory());
    const share = { enabled: true, listen: '127.0.0.1:0', directory: join(path, 'shared') };
    const agent = await startOwnAgent(stack, { own, upstream }, { share });
    await until(() => agent.log().some(({ event }) => event === 'sharing-blobs'), 'the agent shares');
    await load({ clients: [{ urls: [own.blob(digest).replace(own.program.url, agent.url)] }], verify: true });
    let ticket = '';
    await until(async () => (ticket = (await askAsStranger(own.blob(digest))).location) !== '', 'the registry names the agent');
    // nginx sends the agent's own file. The kernel needs 0.75 of the time for a file that was written
    // in one piece, as the upstream's was, because its pages in memory are larger.
    const nginx = await startUpstream(stack);
    for await (const file of glob('*/*', { cwd: share.directory })) await nginx.linkBlob(digest, join(share.directory, file));
    return {
      agent: sharing(ticket, () => Promise.resolve(agent.pid)),
      nginx: sharing(direct(nginx).blob(digest), nginx.worker),
    };
  },
};

export const agentRows = [agent, share];
