import type { Log } from '../../telemetry/log.ts';
import type { Fleet } from '../mihomo/fleet.ts';
import type { Link } from './front.ts';
import type { DownloadReport } from './reports.ts';

export interface WatchOptions {
  links: () => Link[];
  fleet: Pick<Fleet, 'live'>;
  log: Log;
  signal: AbortSignal;
}

/** Watches what clients get through the proxy, and has nodes tested when something looks wrong. */
export interface Watch {
  /** A client has connected. */
  opened(): void;
  /** A connection ended before an answer. */
  unanswered(): void;
  /** The registry says how a download went wrong. */
  report(report: DownloadReport): void;
  /** A node failed its test while it was in use: ends the connections that still wait for it, so that clients try again. */
  left(node: string): void;
}

const TICK_MS = 1000;
/** While clients connect, the node in use is tested this often; nothing is tested while nobody uses the proxy. */
const VERIFIED_MS = 5000;
/** A client has sent something and has had no answer for so long. */
const WAITING_MS = 2000;
/** A connection in the middle of an answer has been silent for so long; after `IDLE_MS` it is taken for an idle one. */
const STALLED_MS = 4000;
const IDLE_MS = 60_000;
/** A download is starved if for this long all connections together get less than `STARVED_BYTES_PER_S`, bytes in each second. */
const STARVED_TICKS = 5;
const STARVED_BYTES_PER_S = 32 * 1024;
/** Connections of a dead node that had bytes more recently than this are not cut: the test may be what failed. */
const PROGRESS_MS = 2500;

interface Progress {
  received: number;
  /** Seconds in a row in which bytes came. */
  flowing: number;
}

export function createWatch({ links, fleet, log, signal }: WatchOptions): Watch {
  const progress = new WeakMap<Link, Progress>();
  let slowTicks = 0;

  const steering = () => fleet.live()?.steering;
  const ownLinks = () => links().filter(({ entrance, ports }) => entrance !== 'controller' && ports === fleet.live()?.ports);

  function checkUnlessVerified(ms = VERIFIED_MS): void {
    const current = steering();
    if (current !== undefined && Date.now() - current.verifiedAt() >= ms) void current.check();
  }

  /** Bytes that came in the last second, and the downloads that are in the middle of an answer. */
  function measure(own: readonly Link[]): { bytes: number; flowing: Link[] } {
    let bytes = 0;
    const flowing = own.filter((link) => {
      const { received, flowing } = progress.get(link) ?? { received: link.received, flowing: 0 };
      const gained = link.received - received;
      bytes += gained;
      progress.set(link, { received: link.received, flowing: gained > 0 ? flowing + 1 : 0 });
      return gained > 0 && flowing + 1 >= STARVED_TICKS;
    });
    return { bytes, flowing };
  }

  function tick(): void {
    const now = Date.now();
    const own = ownLinks();
    const { bytes, flowing } = measure(own);
    slowTicks = flowing.length > 0 && bytes < STARVED_BYTES_PER_S ? slowTicks + 1 : 0;
    if (slowTicks >= STARVED_TICKS) {
      slowTicks = 0;
      void complain(flowing, 'starved');
    }
    const waiting = own.some(({ sentAt, receivedAt }) => sentAt > receivedAt && now - sentAt >= WAITING_MS);
    const stalled = own.some(({ sentAt, receivedAt }) => {
      const silence = now - Math.max(sentAt, receivedAt);
      return receivedAt > 0 && silence >= STALLED_MS && silence < IDLE_MS;
    });
    if (waiting || stalled) checkUnlessVerified(waiting ? WAITING_MS : VERIFIED_MS);
  }

  /** The links that go through `node`. */
  async function through(node: string): Promise<Link[]> {
    const chains = await fleet.live()?.controller.chains();
    return ownLinks().filter(({ localPort }) => chains?.get(localPort)?.includes(node) === true);
  }

  async function complain(of: readonly Link[], outcome: string): Promise<void> {
    const current = steering();
    const node = current?.chosen();
    if (current === undefined || node === undefined) return;
    const affected = (await through(node)).filter((link) => of.includes(link));
    if (affected.length === 0) return;
    await current.complain(node);
    if (current.chosen() === node) return;
    log.warn({ event: 'clash-node-left', node, outcome }, 'a node starves downloads: another one is used');
    for (const link of affected) link.cut();
  }

  const timer = setInterval(tick, TICK_MS).unref();
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });

  return {
    opened: () => checkUnlessVerified(),
    unanswered: () => void steering()?.check(),

    report({ outcome, node }) {
      const current = steering();
      const blamed = node ?? current?.chosen();
      if (current === undefined || blamed === undefined) return;
      if (outcome === 'refused') {
        void current.check();
        return;
      }
      void current.complain(blamed).then(() => {
        if (current.chosen() !== blamed)
          log.warn({ event: 'clash-node-left', node: blamed, outcome }, 'a node breaks downloads: another one is used');
      });
    },

    left(node) {
      log.warn({ event: 'clash-node-left', node, outcome: 'dead' }, 'the node in use does not answer');
      const silentSince = Date.now() - PROGRESS_MS;
      void through(node)
        .then((affected) => {
          for (const link of affected) if (link.receivedAt < silentSince) link.cut();
        })
        .catch(() => undefined); // mihomo has ended, and its connections with it
    },
  };
}
