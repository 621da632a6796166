import type { Node, Nodes } from './nodes.ts';
import { chainLength, isSlow, type Rates } from './rates.ts';
import { isBelow, type Holder, type Swarm } from './swarm.ts';

/** A node that wants to read a blob from another one. */
export interface Search {
  swarm: Swarm;
  asker: Node;
  /** The addresses of nodes that it cannot reach. */
  away: ReadonlySet<string>;
  nodes: Nodes;
  rates: Rates;
  /** When it began, in ms on the monotonic clock. */
  begun: number;
}

/** The maximum number of nodes that read one blob from one node. */
const MAX_CHILDREN = 3;
/** The usual number of readers of one node or of the registry, where the chain has ended: with two
 *  readers, each gets half of the bandwidth. */
const USUAL_CHILDREN = 2;
/** How long a request waits for the answers of nodes, in ms: about as long as a node has to
 *  answer. */
const SETTLE_MS = 800;
/** How long a request waits, in ms, for the answer of a node that would serve it better. */
const TAIL_MS = 300;

/** Undefined: read from the registry itself, or S3. */
export function chooseParent(search: Search): Holder | undefined {
  const { swarm, rates } = search;
  const holder = bestHolder(search);
  if (holder?.isWhole === true && holder.children.size < usualReaders(swarm, rates)) return holder;
  return isRootTaken(swarm, rates) ? holder : undefined;
}

/** The best holder for the asker: in its own zone, not slow, with few readers, near the root. */
function bestHolder({ swarm, asker, away, nodes, rates }: Search): Holder | undefined {
  const chain = chainLength(rates, swarm.size);
  let best: { holder: Holder; rank: number } | undefined;
  for (const holder of swarm.holders.values()) {
    const { node, children, isWhole, depth } = holder;
    if (node === asker || children.size >= MAX_CHILDREN || away.has(node.address) || !nodes.isUsable(node)) continue;
    if (isBelow(holder, asker)) continue;
    const isFar = asker.zone !== '' && node.zone !== asker.zone;
    const classes = 8 * Number(isFar) + 4 * Number(isSlow(rates, node)) + loadOf(holder, chain);
    const rank = 1e6 * classes + 1e3 * (isWhole ? 0 : depth) + Math.min(999, node.readers);
    if (best === undefined || rank < best.rank) best = { holder, rank };
  }
  return best?.holder;
}

/** How many readers a holder counts as having. Beyond the chain, a first reader and a second one
 *  are the same, so that the tree becomes wide and not deep. */
function loadOf({ children, isWhole, depth }: Holder, chain: number): number {
  return isWhole || depth < chain ? children.size : Math.max(1, children.size);
}

/** How many nodes usually read from the registry or S3, or from a node that has the blob. */
function usualReaders({ size }: Swarm, rates: Rates): number {
  return chainLength(rates, size) > 0 ? 1 : USUAL_CHILDREN;
}

/** Whether enough nodes read from the registry or S3. */
function isRootTaken(swarm: Swarm, rates: Rates): boolean {
  return [...swarm.holders.values()].filter(({ readsFromRoot }) => readsFromRoot).length >= usualReaders(swarm, rates);
}

/** The answer to wait for before `parent` is used; undefined: none would help, or the request has
 *  waited long enough. */
export function worthAwaiting(search: Search, parent: Holder | undefined): Promise<void> | undefined {
  if (parent !== undefined && !isTailUnknown(search)) return undefined;
  const isLate = performance.now() - search.begun > (parent === undefined ? SETTLE_MS : TAIL_MS);
  return isLate ? undefined : nextAnswer(search);
}

/** Whether there is a node that has not been probed so far, and could serve the asker without
 *  sharing its bandwidth. */
function isTailUnknown({ swarm, asker, rates }: Search): boolean {
  const chain = chainLength(rates, swarm.size);
  return [...swarm.holders.values()].some(
    (holder) =>
      holder.node !== asker && holder.node.alive === undefined && holder.node.complaints.size === 0 && loadOf(holder, chain) === 0,
  );
}

/** Waits until a node that could serve the asker has answered a probe. When many new nodes send
 *  requests at once, none of them has answered the registry yet, and waiting costs less than
 *  another copy from the registry. Undefined: there is nothing to wait for. */
function nextAnswer({ swarm, asker, away, nodes, rates }: Search): Promise<void> | undefined {
  const holders = [...swarm.holders.values()].filter(({ node }) => node !== asker && !away.has(node.address));
  if (!isRootTaken(swarm, rates) && !holders.some(({ isWhole }) => isWhole)) return undefined;
  return nodes.answer(holders.map(({ node }) => node));
}
