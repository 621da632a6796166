import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startVersitygw } from '../../test/support/versitygw.ts';
import { load, throughput } from '../load.ts';
import { processorSeconds } from '../processor-time.ts';
import type { Row } from '../row.ts';
import { openS3, signedUrls, untilStored } from '../s3.ts';
import { direct, startOther, startOwn, startOwnAgent, startUpstream, type Contestant } from '../servers.ts';

const SIZE = 64 * 2 ** 20;
const CONNECTIONS = 4;
const SECONDS = 1.5;

/** Reads one blob repeatedly. */
const reading =
  ({ blob }: Pick<Contestant, 'blob'>, digest: string) =>
  (turn: number) =>
    throughput(blob(digest), { connections: CONNECTIONS, seconds: SECONDS, turn });

const filesystem: Row = {
  name: 'warm-blob',
  title: { en: 'Warm 64 MiB blob, filesystem, 4 connections', zh: '已缓存的 64 MiB blob，文件系统，4 个连接' },
  unit: 'bytes/s',
  targets: [
    { of: 'registry', against: 'distribution', atLeast: 1 },
    { of: 'registry', against: 'nginx', atLeast: 0.9 },
  ],
  async open(stack) {
    const upstream = await startUpstream(stack);
    const digest = await upstream.addBlob(SIZE);
    const [own, other] = [await startOwn(stack, { upstream }), await startOther(stack, { upstream })];
    return { registry: reading(own, digest), distribution: reading(other, digest), nginx: reading(direct(upstream), digest) };
  },
};

const localTier: Row = {
  name: 'warm-blob-local-tier',
  title: { en: 'Warm blob, local tier in front of S3', zh: '已缓存的 blob，S3 前的本地层' },
  unit: 'bytes/s',
  targets: [{ of: 'registry', against: 'nginx', atLeast: 0.9 }],
  async open(stack) {
    const upstream = await startUpstream(stack);
    const digest = await upstream.addBlob(SIZE);
    const own = await startOwn(stack, { upstream, s3: stack.use(await startVersitygw()) });
    return { registry: reading(own, digest), nginx: reading(direct(upstream), digest) };
  },
};

/** Local tiers are emptied before each turn. All connections together read `count` blobs. */
const s3Only = (name: string, title: Row['title'], count: number): Row => ({
  name,
  title,
  unit: 'bytes/s',
  targets: [
    { of: 'registry', against: 'distribution', atLeast: 1 },
    { of: 'registry', against: 's3', atLeast: 0.25 },
    { of: 'registry by redirect', against: 's3', atLeast: 0.9 },
    { of: 'agents', against: 's3', atLeast: 0.9 },
    { of: 'agents', against: 'distribution', atLeast: 1.3 },
    { of: 'agents', against: 'registry', measure: 'cpu', atMost: 0.05 },
  ],
  async open(stack) {
    const upstream = await startUpstream(stack);
    const gateway = stack.use(await startVersitygw());
    const store = openS3(stack, gateway);
    const digests = await Promise.all(Array.from({ length: count }, () => upstream.addBlob(SIZE)));
    const own = await startOwn(stack, { upstream, s3: gateway });
    const redirecting = await startOwn(stack, { upstream, s3: gateway, redirect: 'all' });
    const behind = await startOwn(stack, { upstream, s3: gateway, redirect: 'agents' });
    const agents: string[] = [];
    for (let count = 0; count < CONNECTIONS; count++) {
      agents.push((await startOwnAgent(stack, { own: behind, upstream }, { fallback: false })).url);
    }
    const other = await startOther(stack, { upstream, s3: gateway });
    for (const { blob } of [own, other]) await load({ clients: digests.map((digest) => ({ urls: [blob(digest)] })) });
    for (const digest of digests) await untilStored(store, digest);
    const signed = await signedUrls(store, digests);
    const readers = Array.from({ length: CONNECTIONS }, (_, n) => digests[n % count] ?? '');
    const once = async ({ blob }: Pick<Contestant, 'blob'>, turn: number): Promise<number> => {
      const { bytes, seconds } = await load({ clients: readers.map((digest) => ({ urls: [blob(digest)] })), verify: turn === 0 });
      return bytes / seconds;
    };
    return {
      registry: async (turn) => {
        await rm(join(own.directory, 'v1/blobs'), { recursive: true });
        const before = await processorSeconds(own.program.pid);
        const value = await once(own, turn);
        const cpuSeconds = (await processorSeconds(own.program.pid)) - before;
        await sleep(300); // flush its local tier to disk now, so that it does not slow down the next contestant
        return { value, cpuSeconds };
      },
      distribution: (turn) => once(other, turn),
      s3: (turn) => once({ blob: (digest) => signed.get(digest) ?? '' }, turn),
      'registry by redirect': (turn) => once(redirecting, turn),
      // Its processor time is the registry's, too.
      agents: async (turn) => {
        const before = await processorSeconds(behind.program.pid);
        const clients = readers.map((digest, n) => ({ urls: [behind.blob(digest).replace(behind.program.url, agents[n] ?? '')] }));
        const { bytes, seconds } = await load({ clients, verify: turn === 0 });
        return { value: bytes / seconds, cpuSeconds: (await processorSeconds(behind.program.pid)) - before };
      },
    };
  },
});

export const warmRows = [
  filesystem,
  localTier,
  s3Only(
    'warm-blob-s3',
    {
      en: 'Warm blobs in S3, local tier empty: 4 connections, each with its own 64 MiB blob',
      zh: '仅在 S3 中的 blob：4 个连接，各读一个 64 MiB blob，本地层为空',
    },
    CONNECTIONS,
  ),
  s3Only(
    'warm-blob-s3-shared',
    {
      en: 'Warm blob in S3, local tier empty: 4 connections, all with the same 64 MiB blob',
      zh: '仅在 S3 中的 blob：4 个连接读同一个 64 MiB blob（如多个节点拉取同一镜像），本地层为空',
    },
    1,
  ),
];
