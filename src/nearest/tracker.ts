import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';
import type { Log } from '../telemetry/log.ts';
import type { AgentOffer, Report, SharingNode } from './agreement.ts';
import type { Node, Nodes } from './nodes.ts';
import { ticketUrl } from './ticket.ts';

/** The node to read the blob from. */
export interface Assignment {
  /** The URL with the ticket; undefined: read the blob from the registry or from S3. */
  url: string | undefined;
  depth: number;
}

/** Tracks which nodes have or receive which blobs, and builds a tree for each blob, in the order of
 *  the nodes' requests. The state is in memory; losing it in a restart costs a few more copies. */
export interface Tracker {
  /** Call it only for an agent that may read the blob, since the ticket gives access to it. */
  assign(this: void, offer: AgentOffer & { node: SharingNode }, blob: { digest: Digest; size: number }): Promise<Assignment>;
  report(this: void, report: Report): void;
}

/** A node that has a blob or receives it. */
interface Holder {
  node: Node;
  isWhole: boolean;
  /** The node that it reads from. Undefined: it reads from the registry or S3, or has the blob. */
  parent: Holder | undefined;
  /** The source of its last bytes, by which its reports are judged. */
  lastParent: Node | undefined;
  readsFromRoot: boolean;
  children: Set<Holder>;
  depth: number;
  /** When it is forgotten unless it reports, in ms on the monotonic clock. */
  until: number;
}

/** All holders of one blob. */
interface Swarm {
  size: number;
  holders: Map<Node, Holder>;
}

/** The maximum number of nodes that read one blob from one node. */
const MAX_CHILDREN = 3;
/** The usual number of readers of one node or of the registry, if there is another source: with two
 *  readers, each gets half of the bandwidth. */
const USUAL_CHILDREN = 2;
const MAX_BLOBS = 5000;
/** How long a request waits for the answers of nodes, in ms: about as long as a node has to
 *  answer. */
const SETTLE_MS = 800;
/** How long a download may take: this, plus the time at the slowest rate. */
const LEASE_MS = 60_000;
const SLOWEST_BYTES_PER_MS = 500;
/** A node whose readers get less than this share of the average speed is used only if there is no
 *  other. */
const SLOW_SHARE = 0.25;
/** Smaller downloads say little about a node's bandwidth. */
const MIN_RATED_BYTES = 4 * 2 ** 20;
const RATE_WEIGHT = 0.3;

export function createTracker({ nodes, log }: { nodes: Nodes; log: Log }): Tracker {
  const swarms = new LRUCache<Digest, Swarm>({ maxSize: MAX_BLOBS, sizeCalculation: () => 1 });
  let averageRate: number | undefined;

  function swarmOf(digest: Digest, size: number): Swarm {
    const known = swarms.get(digest);
    if (known !== undefined) return known;
    const swarm = { size, holders: new Map<Node, Holder>() };
    swarms.set(digest, swarm);
    return swarm;
  }

  function detach(holder: Holder): void {
    if (holder.parent?.children.delete(holder) === true) holder.parent.node.readers--;
    holder.parent = undefined;
    holder.readsFromRoot = false;
  }

  function forget(swarm: Swarm, holder: Holder): void {
    detach(holder);
    for (const child of holder.children) detach(child);
    swarm.holders.delete(holder.node);
  }

  function forgetExpired(swarm: Swarm): void {
    const now = performance.now();
    for (const holder of swarm.holders.values()) if (holder.until < now) forget(swarm, holder);
  }

  const isSlow = ({ rate }: Node): boolean => rate !== undefined && averageRate !== undefined && rate < averageRate * SLOW_SHARE;

  /** The best holder for `asker`: of its own zone, not slow, with few readers, near the root. */
  function choose(swarm: Swarm, asker: Node, away: ReadonlySet<string>): Holder | undefined {
    let best: { holder: Holder; rank: number } | undefined;
    for (const holder of swarm.holders.values()) {
      const { node, children, isWhole, depth } = holder;
      if (node === asker || children.size >= MAX_CHILDREN || away.has(node.address) || !nodes.isUsable(node)) continue;
      if (isBelow(holder, asker)) continue;
      const isFar = asker.zone !== '' && node.zone !== asker.zone;
      const classes = 4 * Number(isFar) + 2 * Number(isSlow(node)) + Number(children.size >= USUAL_CHILDREN);
      const rank = 1e6 * classes + 1e3 * (isWhole ? 0 : depth) + Math.min(999, node.readers);
      if (best === undefined || rank < best.rank) best = { holder, rank };
    }
    return best?.holder;
  }

  /** Whether enough nodes read from the registry or S3. */
  function isRootTaken(swarm: Swarm): boolean {
    return [...swarm.holders.values()].filter(({ readsFromRoot }) => readsFromRoot).length >= USUAL_CHILDREN;
  }

  /** Undefined: read from the registry itself, or S3. */
  function chooseParent(swarm: Swarm, asker: Node, away: ReadonlySet<string>): Holder | undefined {
    const holder = choose(swarm, asker, away);
    if (holder?.isWhole === true && holder.children.size < USUAL_CHILDREN) return holder;
    return isRootTaken(swarm) ? holder : undefined;
  }

  /** Waits until a node that could serve `asker` has answered a probe. When many new nodes send
   *  requests at once, none of them has answered the registry yet, and waiting costs less than
   *  another copy from the registry. Undefined: there is nothing to wait for */
  function awaitAnswer(swarm: Swarm, asker: Node, away: ReadonlySet<string>): Promise<void> | undefined {
    const holders = [...swarm.holders.values()].filter(({ node }) => node !== asker && !away.has(node.address));
    if (!isRootTaken(swarm) && !holders.some(({ isWhole }) => isWhole)) return undefined;
    return nodes.answer(holders.map(({ node }) => node));
  }

  function rate(node: Node, bytes: number, milliseconds: number): void {
    if (bytes < MIN_RATED_BYTES) return;
    const measured = bytes / milliseconds;
    node.rate = node.rate === undefined ? measured : node.rate + RATE_WEIGHT * (measured - node.rate);
    averageRate = averageRate === undefined ? measured : averageRate + RATE_WEIGHT * (measured - averageRate);
  }

  return {
    async assign({ node: offered, away: unreachable, failed }, { digest, size }) {
      const asker = nodes.meet(offered);
      if (failed !== undefined) nodes.complain(failed.address, offered.address);
      const away = new Set([...unreachable, ...(failed === undefined ? [] : [failed.address])]);
      const swarm = swarmOf(digest, size);
      forgetExpired(swarm);
      const before = swarm.holders.get(asker);
      if (before !== undefined) detach(before);
      let parent = chooseParent(swarm, asker, away);
      for (const end = performance.now() + SETTLE_MS; parent === undefined && performance.now() < end;) {
        const answer = awaitAnswer(swarm, asker, away);
        if (answer === undefined) break;
        await answer;
        parent = chooseParent(swarm, asker, away);
      }
      const holder = before ?? { node: asker, isWhole: false, children: new Set(), ...AT_ROOT, lastParent: undefined, until: 0 };
      Object.assign(holder, { isWhole: false, until: performance.now() + LEASE_MS + size / SLOWEST_BYTES_PER_MS });
      Object.assign(holder, { parent, lastParent: parent?.node, readsFromRoot: parent === undefined, depth: (parent?.depth ?? 0) + 1 });
      swarm.holders.set(asker, holder);
      if (parent === undefined) return { url: undefined, depth: 1 };
      parent.children.add(holder);
      parent.node.readers++;
      const { address, key } = parent.node;
      return { url: ticketUrl({ digest, address, size }, key), depth: holder.depth };
    },

    report({ node: offered, digest, outcome, from, milliseconds }) {
      const swarm = swarms.get(digest);
      const holder = swarm?.holders.get(nodes.meet(offered));
      if (swarm === undefined || holder === undefined) return;
      const source = holder.lastParent;
      const isItsSource = source !== undefined && source.address === from;
      if (outcome === 'wrong' && isItsSource) {
        source.distrusted = true;
        log.error(
          { event: 'node-distrusted', address: from, digest, reporter: offered.address },
          'a node sent wrong bytes; no longer using it',
        );
        const wrong = swarm.holders.get(source);
        if (wrong !== undefined) forget(swarm, wrong);
      }
      if (outcome !== 'whole') return forget(swarm, holder);
      if (isItsSource) rate(source, swarm.size, milliseconds);
      detach(holder);
      Object.assign(holder, { isWhole: true, depth: 1, until: performance.now() + 1000 * offered.keep });
    },
  };
}

const AT_ROOT = { parent: undefined, readsFromRoot: true, depth: 1 };

/** Whether `holder` reads from `ancestor`, directly or through others: the two would wait for each
 *  other. */
function isBelow(holder: Holder, ancestor: Node): boolean {
  for (let at = holder.parent; at !== undefined; at = at.parent) if (at.node === ancestor) return true;
  return false;
}
