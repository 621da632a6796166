import type { Node } from './nodes.ts';

/** A node that has a blob or receives it. */
export interface Holder {
  readonly node: Node;
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
  readonly children: Set<Holder>;
  depth: number;
  /** When it is forgotten unless it reports, in ms on the monotonic clock. */
  until: number;
}

/** The nodes that have one blob or receive it. */
export interface Swarm {
  size: number;
  holders: Map<Node, Holder>;
}

/** How long a download may take: this, plus the time at the slowest rate. */
const LEASE_MS = 60_000;
const SLOWEST_BYTES_PER_MS = 500;

export function createHolder(node: Node): Holder {
  return {
    node,
    children: new Set(),
    isWhole: false,
    parent: undefined,
    lastParent: undefined,
    readsFromRoot: true,
    depth: 1,
    sourceTook: () => 0,
    took: undefined,
    until: 0,
  };
}

/** Lets a holder without a parent read the blob from `parent`; undefined: from the registry or
 *  S3. */
export function attach(swarm: Swarm, holder: Holder, parent: Holder | undefined): void {
  holder.isWhole = false;
  holder.took = undefined;
  holder.until = performance.now() + LEASE_MS + swarm.size / SLOWEST_BYTES_PER_MS;
  holder.parent = parent;
  holder.lastParent = parent?.node;
  holder.readsFromRoot = parent === undefined;
  holder.depth = (parent?.depth ?? 0) + 1;
  holder.sourceTook = parent === undefined || parent.isWhole ? () => 0 : () => parent.took;
  swarm.holders.set(holder.node, holder);
  if (parent === undefined) return;
  parent.children.add(holder);
  parent.node.readers++;
}

export function detach(holder: Holder): void {
  freeParent(holder);
  holder.parent = undefined;
  holder.readsFromRoot = false;
}

/** Its parent no longer counts it as a reader. */
export function freeParent(holder: Holder): void {
  if (holder.parent?.children.delete(holder) === true) holder.parent.node.readers--;
}

export function forget(swarm: Swarm, holder: Holder): void {
  detach(holder);
  for (const child of holder.children) detach(child);
  swarm.holders.delete(holder.node);
}

/** Forgets a holder and all nodes that it has passed its bytes on to. */
export function forgetTree(swarm: Swarm, holder: Holder): void {
  for (const child of holder.children) forgetTree(swarm, child);
  forget(swarm, holder);
}

export function forgetExpired(swarm: Swarm): void {
  const now = performance.now();
  for (const holder of swarm.holders.values()) if (holder.until < now) forget(swarm, holder);
}

/** Whether `holder` reads from `ancestor`, directly or through others: the two would wait for each
 *  other. */
export function isBelow(holder: Holder, ancestor: Node): boolean {
  for (let at = holder.parent; at !== undefined; at = at.parent) if (at.node === ancestor) return true;
  return false;
}
