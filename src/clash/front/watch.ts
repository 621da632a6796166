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

/** Watches the connections of clients through the proxy, and triggers tests of nodes if something
 *  looks wrong. */
export interface Watch {
  /** A client has connected. */
  opened(): void;
  /** A connection ended before an answer. */
  unanswered(): void;
  /** The registry reports how a download went wrong. */
  report(report: DownloadReport): void;
  /** A node failed its test while it was in use: ends the connections that still wait for it, so
   *  that clients try again. */
  left(node: string): void;
}

const TICK_MS = 1000;
/** While clients connect, the node in use is tested this often; an unused proxy is not tested. */
const VERIFIED_MS = 5000;
/** A client that sent bytes counts as waiting after this long without a response. */
const WAITING_MS = 2000;
/** A connection counts as stalled after this long without a byte in the middle of a response; after
 *  `IDLE_MS` it counts as idle. */
const STALLED_MS = 4000;
const IDLE_MS = 60_000;
/** A download is starved if for this many seconds it gets some bytes, but fewer than
 *  `STARVED_BYTES`, while its client only listens; unless all connections together get
 *  `ENOUGH_BYTES`: then many share the bandwidth. */
const STARVED_TICKS = 5;
const STARVED_BYTES = STARVED_TICKS * 16 * 1024;
const ENOUGH_BYTES = STARVED_TICKS * 512 * 1024;
/** A connection through an abandoned node continues if it is in the middle of a download: it
 *  received bytes more recently than this, and its client has sent nothing for this long. All
 *  others are cut: they wait in vain, or are kept alive for further requests. */
const PROGRESS_MS = 2500;

export function createWatch({ links, fleet, log, signal }: WatchOptions): Watch {
  const received: ReceivedBytes = new WeakMap();
  let starvedTicks = 0;

  const steering = () => fleet.live()?.steering;
  const ownLinks = () => links().filter(({ entrance, ports }) => entrance !== 'controller' && ports === fleet.live()?.ports);

  function checkUnlessVerified(ms = VERIFIED_MS): void {
    const current = steering();
    if (current !== undefined && Date.now() - current.verifiedAt() >= ms) void current.check();
  }

  function tick(): void {
    const now = Date.now();
    const own = ownLinks();
    const starved = findStarved(received, own, now);
    starvedTicks = starved.length > 0 ? starvedTicks + 1 : 0;
    if (starvedTicks % STARVED_TICKS === 1) void complain(starved, 'starved').catch(() => undefined); // mihomo has ended
    const active = own.some(({ sentAt }) => now - sentAt <= 2 * TICK_MS);
    const waiting = own.some(({ sentAt, receivedAt }) => sentAt > receivedAt && now - sentAt >= WAITING_MS);
    const stalled = own.some(({ sentAt, receivedAt }) => {
      const silence = now - Math.max(sentAt, receivedAt);
      return receivedAt > 0 && silence >= STALLED_MS && silence < IDLE_MS;
    });
    if (active || waiting || stalled) checkUnlessVerified(waiting ? WAITING_MS : VERIFIED_MS);
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
    log.warn({ event: 'clash-node-left', node, outcome }, 'a proxy node starves downloads; using another one');
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
          log.warn({ event: 'clash-node-left', node: blamed, outcome }, 'a proxy node cuts downloads; using another one');
      });
    },

    left(node) {
      log.warn({ event: 'clash-node-left', node, outcome: 'dead' }, 'the proxy node in use does not answer; using another one');
      const now = Date.now();
      const downloads = ({ sentAt, receivedAt }: Link) => now - receivedAt < PROGRESS_MS && now - sentAt >= PROGRESS_MS;
      void through(node)
        .then((affected) => {
          for (const link of affected) if (!downloads(link)) link.cut();
        })
        .catch(() => undefined); // mihomo has ended, and its connections with it
    },
  };
}

/** The bytes that a link had received at each of the last ticks. */
type ReceivedBytes = WeakMap<Link, number[]>;

/** The downloads that are starved now. */
function findStarved(received: ReceivedBytes, own: readonly Link[], now: number): Link[] {
  const gains = own.map((link) => ({ link, gain: gainOf(received, link) }));
  const total = gains.reduce((sum, { gain }) => sum + (gain === Infinity ? 0 : gain), 0);
  if (total >= ENOUGH_BYTES) return [];
  const listening = ({ sentAt }: Link) => now - sentAt > (STARVED_TICKS + 1) * TICK_MS;
  return gains.filter(({ link, gain }) => gain > 0 && gain < STARVED_BYTES && listening(link)).map(({ link }) => link);
}

/** How many bytes a link received in the last `STARVED_TICKS` seconds; Infinity: it is
 *  younger. */
function gainOf(received: ReceivedBytes, link: Link): number {
  const ticks = [...(received.get(link) ?? []), link.received].slice(-STARVED_TICKS - 1);
  received.set(link, ticks);
  return ticks.length <= STARVED_TICKS ? Infinity : link.received - (ticks[0] ?? 0);
}
