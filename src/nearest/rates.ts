import type { Node } from './nodes.ts';

/** What downloads have shown about the bandwidth of nodes. */
export interface Rates {
  /** Of all nodes, in bytes per ms; undefined: no download has been rated yet. */
  average: number | undefined;
}

/** A download, in bytes and ms. */
export interface RatedDownload {
  bytes: number;
  milliseconds: number;
  /** How long its source took to receive the blob, 0 if the source had it before. Undefined: the
   *  source is still receiving it. */
  sourceTook: number | undefined;
}

/** The bandwidth of nodes before the first report, in bytes per ms: 1 Gbit/s. */
const ASSUMED_RATE = 125_000;
/** A node that sends or receives at less than this share of the average speed is used only if there
 *  is no other. */
const SLOW_SHARE = 0.25;
/** Smaller downloads say little about a node's bandwidth. */
const MIN_RATED_BYTES = 4 * 2 ** 20;
const RATE_WEIGHT = 0.3;
/** A download that takes less than this multiple of its source's own one was not slowed down. */
const PASSED_ON = 2;
/** What one hop adds to the time until the last byte arrives, in ms. */
const HOP_MS = 30;
/** All hops of a chain together may make a download longer by this share. */
const HOPS_SHARE = 0.3;
/** The longest chain: a node that fails delays all nodes behind it by about a second. */
const MAX_CHAIN = 32;

export function isSlow({ average }: Rates, { rate }: Node): boolean {
  return rate !== undefined && average !== undefined && rate < average * SLOW_SHARE;
}

/** How many nodes may read a blob of `size` bytes in a chain, each from the one before it. A chain
 *  is twice as fast as a tree whose nodes have two readers each, but has more hops. 0: not worth
 *  it. */
export function chainLength({ average }: Rates, size: number): number {
  const milliseconds = size / (average ?? ASSUMED_RATE);
  return Math.min(MAX_CHAIN, Math.floor((HOPS_SHARE * milliseconds) / HOP_MS));
}

/** Learns the bandwidth of the node that has downloaded a blob, and of its source. If the node
 *  passed the bytes on as fast as its source received them, the download shows nothing. */
export function learnRate(rates: Rates, of: readonly (Node | undefined)[], { bytes, milliseconds, sourceTook }: RatedDownload): void {
  if (bytes < MIN_RATED_BYTES || sourceTook === undefined || milliseconds < PASSED_ON * sourceTook) return;
  const measured = bytes / milliseconds;
  const smooth = (before: number | undefined): number => (before === undefined ? measured : before + RATE_WEIGHT * (measured - before));
  for (const node of of) if (node !== undefined) node.rate = smooth(node.rate);
  rates.average = smooth(rates.average);
}
