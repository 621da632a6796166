import { setTimeout as sleep } from 'node:timers/promises';
import { load, startShaper, type LoadResult } from '../load.ts';
import type { Contestants, Row, Target } from '../row.ts';
import { direct, startOther, startOwn, startUpstream, type Contestant } from '../servers.ts';

const SIZE = 64 * 2 ** 20;

interface Cold {
  clients?: number;
  /** Upstream's line, in bytes a second: of each connection, or of all together. Absent: as fast as it can. */
  line?: { rate: number; each: boolean };
  /** From what the clients saw. */
  measure: (result: LoadResult) => number;
  without?: readonly string[];
}

/** One blob a turn that nobody has asked for before; the same for all contestants. */
function openCold({ clients = 1, line, measure, without = [] }: Cold): Row['open'] {
  return async (stack) => {
    const upstream = await startUpstream(stack);
    const host = line === undefined ? upstream.host : await startShaper(stack, upstream.host, line);
    const shaped = { host, url: `http://${host}` };
    const [own, other] = [await startOwn(stack, { upstream: shaped }), await startOther(stack, { upstream: shaped })];
    // The warm-up of a slow line need not take as long as a turn.
    const blobs: string[] = [await upstream.addBlob(line === undefined ? SIZE : SIZE / 8)];
    const reading =
      ({ blob }: Contestant, copies: number) =>
      async (turn: number) => {
        const digest = (blobs[turn] ??= await upstream.addBlob(SIZE));
        const before = await upstream.sent(digest);
        const readers = Array.from({ length: clients }, () => ({ urls: [blob(digest)] }));
        const result = await load({ clients: readers, verify: turn === 0 });
        await sleep(300); // what it keeps goes to disk now: not at the cost of the next
        const sent = (await upstream.sent(digest)) - before;
        if (sent > copies * SIZE) throw new Error(`upstream has sent ${sent} bytes of a blob of ${SIZE}`);
        return measure(result);
      };
    const all: Contestants = {
      registry: reading(own, 1.2), // one copy, and what lay in the buffers of a connection whose part another one took over
      distribution: reading(other, Infinity),
      upstream: reading(direct(shaped), Infinity),
    };
    return Object.fromEntries(Object.entries(all).filter(([name]) => !without.includes(name)));
  };
}

const seconds = (result: LoadResult): number => result.seconds;
const total = (title: Row['title'], name: string, cold: Omit<Cold, 'measure'>, targets: Target[]): Row => ({
  name,
  title,
  unit: 'seconds',
  targets,
  open: openCold({ measure: seconds, ...cold }),
});

const together = (title: Row['title'], name: string, cold: Pick<Cold, 'line'>): Row => ({
  name,
  title,
  unit: 'bytes/s',
  targets: [{ of: 'registry', against: 'distribution', atLeast: 3 }],
  open: openCold({ clients: 32, without: ['upstream'], measure: ({ bytes, seconds }) => bytes / seconds, ...cold }),
});

const SLOW = 8e6;
const GIGABIT = 125e6;

export const coldRows: readonly Row[] = [
  total({ en: 'Cold 64 MiB blob, upstream as fast as it can', zh: '未缓存的 64 MiB blob，上游不限速' }, 'cold-blob', {}, [
    { of: 'registry', against: 'upstream', atMost: 1.1 },
  ]),
  {
    ...total({ en: 'Cold 64 MiB blob, until its first byte', zh: '未缓存的 64 MiB blob，到首字节的时间' }, 'cold-first-byte', {}, [
      { of: 'registry', against: 'upstream', as: 'difference', atMost: 0.01 },
    ]),
    open: openCold({ measure: ({ clients }) => clients[0]?.firstByte ?? Number.NaN }),
  },
  total(
    { en: 'Cold 64 MiB blob, upstream over 1 Gbit/s', zh: '未缓存的 64 MiB blob，上游带宽 1 Gbit/s' },
    'cold-gigabit',
    { line: { rate: GIGABIT, each: false } },
    [{ of: 'registry', against: 'upstream', atMost: 1.1 }],
  ),
  {
    ...total(
      { en: 'Cold 64 MiB blob, upstream gives 8 MB/s a connection', zh: '未缓存的 64 MiB blob，上游每个连接 8 MB/s' },
      'cold-slow-connections',
      { line: { rate: SLOW, each: true }, without: ['upstream'] },
      [{ of: 'registry', against: 'distribution', atMost: 0.35 }],
    ),
    turns: 3,
  },
  {
    ...total(
      { en: 'Cold 64 MiB blob, upstream gives 8 MB/s in all', zh: '未缓存的 64 MiB blob，上游总共 8 MB/s' },
      'cold-slow-line',
      { line: { rate: SLOW, each: false } },
      [{ of: 'registry', against: 'upstream', atMost: 1.05 }],
    ),
    turns: 3,
  },
  together(
    {
      en: '32 clients on one cold 64 MiB blob, upstream over 1 Gbit/s',
      zh: '32 个客户端同时拉取一个未缓存的 64 MiB blob，上游带宽 1 Gbit/s',
    },
    'cold-32-clients',
    {
      line: { rate: GIGABIT, each: false },
    },
  ),
  together(
    { en: '32 clients on one cold 64 MiB blob, upstream as fast as it can', zh: '32 个客户端同时拉取一个未缓存的 64 MiB blob，上游不限速' },
    'cold-32-clients-unbounded',
    {},
  ),
];
