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
 *  the nodes' requests: a chain as long as its hops take little time compared with the blob, and
 *  branches after that. The state is in memory; losing it in a restart costs a few more copies. */
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
  /** How long its source took to receive the blob, in ms; 0 if the source had it before. */
  sourceTook(this: void): number | undefined;
  /** How long it took itself; undefined: it is still receiving the blob. */
  took: number | undefined;
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
/** The usual number of readers of one node or of the registry, where the chain has ended: with two
 *  readers, each gets half of the bandwidth. */
const USUAL_CHILDREN = 2;
/** What one hop adds to the time until the last byte arrives, in ms. */
const HOP_MS = 30;
/** All hops of a chain together may make a download longer by this share. */
const HOPS_SHARE = 0.3;
/** The longest chain: a node that fails delays all nodes behind it by about a second. */
const MAX_CHAIN = 32;
/** The bandwidth of nodes before the first report, in bytes per ms: 1 Gbit/s. */
const ASSUMED_RATE = 125_000;
const MAX_BLOBS = 5000;
/** How long a request waits for the answers of nodes, in ms: about as long as a node has to
 *  answer. */
const SETTLE_MS = 800;
/** How long a request waits, in ms, for the answer of a node that would serve it better. */
const TAIL_MS = 300;
/** How long a download may take: this, plus the time at the slowest rate. */
const LEASE_MS = 60_000;
const SLOWEST_BYTES_PER_MS = 500;
/** A node that sends or receives at less than this share of the average speed is used only if there
 *  is no other. */
const SLOW_SHARE = 0.25;
/** Smaller downloads say little about a node's bandwidth. */
const MIN_RATED_BYTES = 4 * 2 ** 20;
const RATE_WEIGHT = 0.3;
/** A download that takes less than this multiple of its source's own one was not slowed down. */
const PASSED_ON = 2;

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

  /** Forgets a holder and all nodes that it has passed its bytes on to. */
  function forgetTree(swarm: Swarm, holder: Holder): void {
    for (const child of holder.children) forgetTree(swarm, child);
    forget(swarm, holder);
  }

  /** A node that failed its readers probably no longer reads from its source either. It stays above
   *  its readers, in case it does. */
  function freeSource(swarm: Swarm, address: string): void {
    const node = nodes.at(address);
    const holder = node === undefined ? undefined : swarm.holders.get(node);
    if (holder?.parent?.children.delete(holder) === true) holder.parent.node.readers--;
  }

  function forgetExpired(swarm: Swarm): void {
    const now = performance.now();
    for (const holder of swarm.holders.values()) if (holder.until < now) forget(swarm, holder);
  }

  const isSlow = ({ rate }: Node): boolean => rate !== undefined && averageRate !== undefined && rate < averageRate * SLOW_SHARE;

  /** How many nodes may read a blob in a chain, each from the one before it. A chain is twice as
   *  fast as a tree whose nodes have two readers each, but has more hops. 0: not worth it. */
  function chainLength(size: number): number {
    const milliseconds = size / (averageRate ?? ASSUMED_RATE);
    return Math.min(MAX_CHAIN, Math.floor((HOPS_SHARE * milliseconds) / HOP_MS));
  }

  /** How many readers a holder counts as having. Beyond the chain, a first reader and a second one
   *  are the same, so that the tree becomes wide and not deep. */
  function loadOf({ children, isWhole, depth }: Holder, chain: number): number {
    return isWhole || depth < chain ? children.size : Math.max(1, children.size);
  }

  /** The best holder for `asker`: of its own zone, not slow, with few readers, near the root. */
  function choose(swarm: Swarm, asker: Node, away: ReadonlySet<string>): Holder | undefined {
    const chain = chainLength(swarm.size);
    let best: { holder: Holder; rank: number } | undefined;
    for (const holder of swarm.holders.values()) {
      const { node, children, isWhole, depth } = holder;
      if (node === asker || children.size >= MAX_CHILDREN || away.has(node.address) || !nodes.isUsable(node)) continue;
      if (isBelow(holder, asker)) continue;
      const isFar = asker.zone !== '' && node.zone !== asker.zone;
      const classes = 8 * Number(isFar) + 4 * Number(isSlow(node)) + loadOf(holder, chain);
      const rank = 1e6 * classes + 1e3 * (isWhole ? 0 : depth) + Math.min(999, node.readers);
      if (best === undefined || rank < best.rank) best = { holder, rank };
    }
    return best?.holder;
  }

  /** How many nodes usually read from the registry or S3, or from a node that has the blob. */
  const usualReaders = ({ size }: Swarm): number => (chainLength(size) > 0 ? 1 : USUAL_CHILDREN);

  /** Whether enough nodes read from the registry or S3. */
  function isRootTaken(swarm: Swarm): boolean {
    return [...swarm.holders.values()].filter(({ readsFromRoot }) => readsFromRoot).length >= usualReaders(swarm);
  }

  /** Undefined: read from the registry itself, or S3. */
  function chooseParent(swarm: Swarm, asker: Node, away: ReadonlySet<string>): Holder | undefined {
    const holder = choose(swarm, asker, away);
    if (holder?.isWhole === true && holder.children.size < usualReaders(swarm)) return holder;
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

  /** A node that has not been probed so far, and could serve `asker` without sharing its bandwidth. */
  function isTailUnknown(swarm: Swarm, asker: Node): boolean {
    const chain = chainLength(swarm.size);
    return [...swarm.holders.values()].some(
      (holder) =>
        holder.node !== asker && holder.node.alive === undefined && holder.node.complaints.size === 0 && loadOf(holder, chain) === 0,
    );
  }

  /** The answer to wait for before `parent` is used; undefined: none would help, or it takes too
   *  long. */
  function worthAwaiting(
    swarm: Swarm,
    { asker, away, begun }: { asker: Node; away: ReadonlySet<string>; begun: number },
    parent: Holder | undefined,
  ): Promise<void> | undefined {
    if (parent !== undefined && !isTailUnknown(swarm, asker)) return undefined;
    const isLate = performance.now() - begun > (parent === undefined ? SETTLE_MS : TAIL_MS);
    return isLate ? undefined : awaitAnswer(swarm, asker, away);
  }

  /** What a download says about the bandwidth of the node and its source. A download that passes on
   *  another one as fast as that comes says nothing. */
  function rate(of: readonly (Node | undefined)[], { bytes, milliseconds, sourceTook }: Took): void {
    if (bytes < MIN_RATED_BYTES || sourceTook === undefined || milliseconds < PASSED_ON * sourceTook) return;
    const measured = bytes / milliseconds;
    const smooth = (before: number | undefined): number => (before === undefined ? measured : before + RATE_WEIGHT * (measured - before));
    for (const node of of) if (node !== undefined) node.rate = smooth(node.rate);
    averageRate = smooth(averageRate);
  }

  return {
    async assign({ node: offered, away: unreachable, failed }, { digest, size }) {
      const asker = nodes.meet(offered);
      if (failed !== undefined) nodes.complain(failed.address, offered.address);
      const away = new Set([...unreachable, ...(failed === undefined ? [] : [failed.address])]);
      const swarm = swarmOf(digest, size);
      forgetExpired(swarm);
      if (failed !== undefined) freeSource(swarm, failed.address);
      const before = swarm.holders.get(asker);
      if (before !== undefined) detach(before);
      const begun = performance.now();
      let parent = chooseParent(swarm, asker, away);
      for (;;) {
        const answer = worthAwaiting(swarm, { asker, away, begun }, parent);
        if (answer === undefined) break;
        await answer;
        parent = chooseParent(swarm, asker, away);
      }
      const holder = before ?? { node: asker, children: new Set(), ...AT_ROOT };
      Object.assign(holder, { isWhole: false, took: undefined, until: performance.now() + LEASE_MS + size / SLOWEST_BYTES_PER_MS });
      Object.assign(holder, { parent, lastParent: parent?.node, readsFromRoot: parent === undefined, depth: (parent?.depth ?? 0) + 1 });
      holder.sourceTook = parent === undefined || parent.isWhole ? () => 0 : () => parent.took;
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
        forgetTree(swarm, wrong ?? holder); // the nodes below have the same bytes
      }
      if (outcome !== 'whole') return forget(swarm, holder);
      if (isItsSource || from === undefined)
        rate([holder.node, source], { bytes: swarm.size, milliseconds, sourceTook: holder.sourceTook() });
      detach(holder);
      Object.assign(holder, { isWhole: true, took: milliseconds, depth: 1, until: performance.now() + 1000 * offered.keep });
    },
  };
}

/** A download, in bytes and ms. */
interface Took {
  bytes: number;
  milliseconds: number;
  sourceTook: number | undefined;
}

const AT_ROOT = {
  isWhole: false,
  parent: undefined,
  lastParent: undefined,
  readsFromRoot: true,
  depth: 1,
  sourceTook: () => 0,
  took: undefined,
  until: 0,
};

/** Whether `holder` reads from `ancestor`, directly or through others: the two would wait for each
 *  other. */
function isBelow(holder: Holder, ancestor: Node): boolean {
  for (let at = holder.parent; at !== undefined; at = at.parent) if (at.node === ancestor) return true;
  return false;
}
