import type { AgentsReport } from './api/places.ts';
import { createHourCounts, type HourCounts } from './hour-counts.ts';

/** The nodes that pull, as seen in their requests. */
export interface Nodes {
  /** A request for a manifest or a blob. @param node the name reported by the agent; not
   *  verified */
  served(this: void, request: { client: string; node: string | undefined; kind: string; bytes: number; status: number }): void;
  /** Most recent first. */
  read(this: void): Omit<AgentsReport['nodes'][number], 'agent'>[];
}

const MAX_NODES = 5000;
/** How long the order of nodes may be out of date, in ms. */
const REORDERED_AFTER_MS = 1000;
/** As Kubernetes names nodes. */
const NODE_NAME = /^[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?$/;

interface Known {
  node: string;
  address: string;
  lastSeen: number;
  counts: HourCounts<'pulls' | 'bytes' | 'errors'>;
}

/** @param now ms since the epoch */
export function createNodes(now: () => number = Date.now): Nodes {
  const nodes = new Map<string, Known>();

  function find(client: string, name: string | undefined, at: number): Known {
    const recent = nodes.get(name ?? client);
    // Deleting and reinserting a Map entry with each request would make the Map rehash again and
    // again.
    if (recent !== undefined && at - recent.lastSeen < REORDERED_AFTER_MS) return recent;
    const node = name !== undefined && NODE_NAME.test(name) ? name : client;
    const known = nodes.get(node) ?? { node, address: client, lastSeen: 0, counts: createHourCounts(['pulls', 'bytes', 'errors'], now) };
    nodes.delete(node); // the most recent come last
    nodes.set(node, known);
    for (const oldest of nodes.keys()) {
      if (nodes.size <= MAX_NODES) break;
      nodes.delete(oldest);
    }
    return known;
  }

  return {
    served({ client, node, kind, bytes, status }) {
      const at = now();
      const own = find(client, node, at);
      own.lastSeen = at;
      own.address = client;
      const counts = own.counts.at(at);
      if (kind === 'manifest') counts.pulls++;
      counts.bytes += bytes;
      if (status >= 400 && status !== 499) counts.errors++;
    },
    read: () =>
      [...nodes.values()]
        .sort((one, other) => other.lastSeen - one.lastSeen)
        .map(({ node, address, lastSeen, counts }) => ({ node, address, lastSeen: new Date(lastSeen).toISOString(), hour: counts.read() })),
  };
}
