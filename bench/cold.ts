import { setTimeout as sleep } from 'node:timers/promises';
import { startProcess } from '../test/support/process.ts';
import { otherProgram } from '../test/support/program.ts';
import { load, startShaper, type LoadResult } from './load.ts';
import { processorSeconds } from './processor-time.ts';
import type { Contestants, Measurement, Row, Turn } from './row.ts';
import { direct, FAR_NAME, startOther, startOwn, startProxy, startUpstream, type Contestant, type Upstream } from './servers.ts';

const SIZE = 64 * 2 ** 20;
/** The limit of what upstream may send of each blob: one copy, plus the bytes in the buffers of a
 *  connection whose range another one has taken over. */
const MAX_COPIES = 1.05;
/** The number of blobs that each contestant serves before the first turn, over a connection without
 *  a limit: Node compiles frequently used functions only after a while, as it has in a registry
 *  that has run for days. */
const WARM_UPS = 8;

export interface Cold {
  clients?: number;
  /** Upstream's bandwidth, in bytes per second: of each connection, or of all together. Absent:
   *  unlimited. */
  line?: { rate: number; each: boolean };
  /** Upstream serves over HTTPS, with a certificate of an authority of its own. */
  secure?: boolean;
  /** Upstream is reached through mihomo. */
  proxy?: 'http' | 'socks5';
  /** The number of other processes that keep the CPU busy. */
  busy?: number;
  /** Computed from the clients' results; by default the seconds until the last one has finished. */
  measure?: (result: LoadResult) => number;
  without?: readonly string[];
}

/** One new blob per turn, the same for all contestants. */
export function openCold(cold: Cold): Row['open'] {
  const { clients = 1, line, measure = ({ seconds }) => seconds, without = [] } = cold;
  return async (stack) => {
    const upstream = await startUpstream(stack, { secure: cold.secure === true });
    const near = await overLine(stack, upstream, line);
    const { far, proxy } = await throughProxy(stack, near, cold.proxy);
    const [own, other] = [await startOwn(stack, { upstream: far, proxy }), await startOther(stack, { upstream: far, proxy })];
    // With a slow upstream, the warm-up need not take as long as a turn. With one that limits each
    // connection, the registry learns that several connections are faster.
    const blobs: string[] = [await upstream.addBlob(line === undefined || line.each ? SIZE : SIZE / 8)];
    const warmUps: string[] = [];
    const warmUp = async ({ blob }: Contestant): Promise<void> => {
      for (let count = 0; line === undefined && count < WARM_UPS; count++) {
        const digest = (warmUps[count] ??= await upstream.addBlob(SIZE));
        await load({ clients: [{ urls: [blob(digest)] }], verify: false, ca: upstream.ca });
      }
    };
    const reading =
      (contestant: Contestant, copies: number): Turn<number | Measurement> =>
      async (turn) => {
        const { blob, pid } = contestant;
        if (turn === 0) await warmUp(contestant);
        const digest = (blobs[turn] ??= await upstream.addBlob(SIZE));
        const [sentBefore, usedBefore] = [await upstream.sent(digest), await used(pid)];
        const readers = Array.from({ length: clients }, () => ({ urls: [blob(digest)] }));
        const result = await load({ clients: readers, verify: turn === 0, ca: upstream.ca });
        await sleep(300); // flush its writes to disk now, so that they do not slow down the next contestant
        const sent = (await upstream.sent(digest)) - sentBefore;
        if (turn > 0 && sent > copies * SIZE) throw new Error(`upstream has sent ${sent} bytes of a blob of ${SIZE}`);
        const value = measure(result);
        return pid === undefined ? value : { value, cpuSeconds: (await used(pid)) - usedBefore };
      };
    for (let count = 0; count < (cold.busy ?? 0); count++) {
      stack.use(await startProcess({ command: 'sh', args: ['-c', 'while :; do :; done'] }));
    }
    // Another checkout is compared, not tested. What a limited line has not taken yet, upstream has
    // already written to its sockets, so that copies cannot be counted there.
    const isCounted = line === undefined && otherProgram.getStore() === undefined;
    const all: Contestants = {
      registry: reading(own, isCounted ? MAX_COPIES : Infinity),
      distribution: reading(other, Infinity),
      upstream: reading(direct(near), Infinity),
    };
    return Object.fromEntries(Object.entries(all).filter(([name]) => !without.includes(name)));
  };
}

async function used(pid: Contestant['pid']): Promise<number> {
  return pid === undefined ? 0 : processorSeconds(pid());
}

async function overLine(
  stack: AsyncDisposableStack,
  upstream: Upstream,
  line: Cold['line'],
): Promise<Pick<Upstream, 'url' | 'host' | 'ca'>> {
  if (line === undefined) return upstream;
  const host = await startShaper(stack, upstream.host, line);
  return { ...upstream, host, url: upstream.url.replace(upstream.host, host) };
}

async function throughProxy(
  stack: AsyncDisposableStack,
  near: Pick<Upstream, 'url' | 'ca'>,
  kind: Cold['proxy'],
): Promise<{ far: Pick<Upstream, 'url' | 'ca'>; proxy?: string }> {
  if (kind === undefined) return { far: near };
  return { far: { ...near, url: near.url.replace('127.0.0.1', FAR_NAME) }, proxy: `${kind}://${await startProxy(stack)}` };
}
