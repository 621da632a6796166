import { LRUCache } from 'lru-cache';
import type { Digest } from '../oci/digest.ts';
import type { Log } from '../telemetry/log.ts';
import type { AgentOffer, Report, SharingNode } from './agreement.ts';
import { chooseParent, worthAwaiting } from './choose-parent.ts';
import type { Node, Nodes } from './nodes.ts';
import { learnRate, type Rates } from './rates.ts';
import { attach, createHolder, detach, forget, forgetExpired, forgetTree, freeParent, type Holder, type Swarm } from './swarm.ts';
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

const MAX_BLOBS = 5000;

export function createTracker({ nodes, log }: { nodes: Nodes; log: Log }): Tracker {
  const swarms = new LRUCache<Digest, Swarm>({ maxSize: MAX_BLOBS, sizeCalculation: () => 1 });
  const rates: Rates = { average: undefined };
  return {
    assign: (offer, blob) => assign({ swarms, nodes, rates }, offer, blob),
    report: (report) => noteReport({ swarms, nodes, rates, log }, report),
  };
}

interface Tracked {
  swarms: LRUCache<Digest, Swarm>;
  nodes: Nodes;
  rates: Rates;
}

async function assign(
  { swarms, nodes, rates }: Tracked,
  { node: offered, away: unreachable, failed }: AgentOffer & { node: SharingNode },
  { digest, size }: { digest: Digest; size: number },
): Promise<Assignment> {
  const asker = nodes.meet(offered);
  if (failed !== undefined) nodes.complain(failed.address, offered.address);
  const away = new Set([...unreachable, ...(failed === undefined ? [] : [failed.address])]);
  const swarm = swarms.get(digest) ?? createSwarm(swarms, digest, size);
  forgetExpired(swarm);
  if (failed !== undefined) freeSource(swarm, nodes, failed.address);
  const before = swarm.holders.get(asker);
  if (before !== undefined) detach(before);
  const search = { swarm, asker, away, nodes, rates, begun: performance.now() };
  let parent = chooseParent(search);
  for (;;) {
    const answer = worthAwaiting(search, parent);
    if (answer === undefined) break;
    await answer;
    parent = chooseParent(search);
  }
  // Nothing is awaited between the last choice and this: one answer wakes many requests, and each
  // has to see the readers before it.
  const holder = before ?? createHolder(asker);
  attach(swarm, holder, parent);
  if (parent === undefined) return { url: undefined, depth: 1 };
  const { address, key } = parent.node;
  return { url: ticketUrl({ digest, address, size }, key), depth: holder.depth };
}

function createSwarm(swarms: Tracked['swarms'], digest: Digest, size: number): Swarm {
  const swarm = { size, holders: new Map<Node, Holder>() };
  swarms.set(digest, swarm);
  return swarm;
}

/** A node that failed its readers probably no longer reads from its source either. It stays above
 *  its readers, in case it does. */
function freeSource(swarm: Swarm, nodes: Nodes, address: string): void {
  const node = nodes.at(address);
  const holder = node === undefined ? undefined : swarm.holders.get(node);
  if (holder !== undefined) freeParent(holder);
}

function noteReport({ swarms, nodes, rates, log }: Tracked & { log: Log }, report: Report): void {
  const { node: offered, digest, outcome, from, milliseconds } = report;
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
  if (isItsSource || from === undefined) {
    learnRate(rates, [holder.node, source], { bytes: swarm.size, milliseconds, sourceTook: holder.sourceTook() });
  }
  detach(holder);
  becomeWhole(holder, milliseconds, performance.now() + 1000 * offered.keep);
}

function becomeWhole(holder: Holder, took: number, until: number): void {
  holder.isWhole = true;
  holder.took = took;
  holder.depth = 1;
  holder.until = until;
}
