import { downloadsSchema, type Downloads } from '../api/downloads.ts';
import { historySchema } from '../api/history.ts';
import { overviewSchema, type Overview } from '../api/overview.ts';
import { replicasSchema, type Replicas } from '../api/places.ts';
import { mergeHistories, totalsOf, type HistoryRing } from '../history.ts';
import type { InventoryService } from '../inventory-service.ts';
import { mergeSnapshots } from '../live.ts';
import type { ApiHandlers } from '../api-server.ts';
import type { OtherReplicas } from '../replicas.ts';
import type { UpstreamStates } from '../upstream-states.ts';

export interface TrafficOptions {
  version: string;
  startedAt: Date;
  history: HistoryRing;
  upstreams: UpstreamStates;
  inventory: InventoryService;
  snapshot(this: void): Omit<Downloads, 'unreachable'>;
  store: { kind: 'filesystem' | 's3'; where: string; limit(this: void): Promise<number | null> };
  localTier(this: void): Overview['localTier'];
  grafana: string | undefined;
  replicas: OtherReplicas;
  /** The name of this replica. */
  replica: string;
}

/** The API of the registry's traffic: overview, downloads, history, and replicas. */
export function createTrafficHandlers(options: TrafficOptions): Pick<ApiHandlers, 'overview' | 'downloads' | 'history' | 'replicas'> {
  const { history, replicas, snapshot } = options;
  return {
    async overview({ alone, signal }) {
      const own = await ownOverview(options);
      if (alone) return own;
      const { answers, unreachable } = await replicas.ask('/api/overview', overviewSchema, { signal });
      const others = answers.map(({ answer }) => answer);
      return { ...mergeOverviews(own, others), unreachable };
    },

    async downloads({ alone, signal }) {
      if (alone) return { ...snapshot(), unreachable: [] };
      const { answers, unreachable } = await replicas.ask('/api/downloads', downloadsSchema, { signal });
      return { ...mergeSnapshots([snapshot(), ...answers.map(({ answer }) => answer)]), unreachable };
    },

    async history({ query, alone, signal }) {
      const own = history.read(query.window);
      if (alone) return { ...own, unreachable: [] };
      const { answers, unreachable } = await replicas.ask(`/api/history?window=${query.window}`, historySchema, { signal });
      const others = answers.map(({ answer }) => answer);
      return { ...mergeHistories(own, others), unreachable };
    },

    async replicas({ alone, signal }) {
      const own = ownReplica(options);
      if (alone) return { replicas: [own] };
      const { answers, unreachable } = await replicas.ask('/api/replicas', replicasSchema, { signal });
      const others = answers.flatMap(({ address, answer }) => answer.replicas.map((replica) => ({ ...replica, address, self: false })));
      const all = [...others, ...unreachable.map(lostReplica)];
      return { replicas: [own, ...all.sort((one, other) => one.address.localeCompare(other.address))] };
    },
  };
}

async function ownOverview(options: TrafficOptions): Promise<Overview> {
  const { history, inventory, snapshot, upstreams, store } = options;
  inventory.look();
  const totals = history.totals();
  const running = snapshot();
  const runningBytes = running.downloads
    .filter(({ source }) => source === 'upstream')
    .reduce((sum, { receivedBytes }) => sum + receivedBytes, 0);
  const stored = inventory.current();
  return {
    version: options.version,
    startedAt: options.startedAt.toISOString(),
    now: new Date().toISOString(),
    totals,
    hour: history.hour(),
    ...shares({ totals, hour: history.hour(), runningBytes }),
    runningDownloads: running.total,
    runningBytes,
    rateLimits: upstreams.names().flatMap((upstream) => {
      const { rateLimit } = upstreams.read(upstream);
      return rateLimit === null ? [] : [{ upstream, ...rateLimit }];
    }),
    store: {
      kind: store.kind,
      where: store.where,
      bytes: stored?.bytes ?? null,
      blobs: stored?.blobs ?? null,
      limit: await store.limit(),
    },
    localTier: options.localTier(),
    inventory: inventory.state(),
    links: { grafana: options.grafana ?? null },
    unreachable: [],
  };
}

function mergeOverviews(own: Overview, others: readonly Overview[]): Overview {
  const all = [own, ...others];
  const totals = totalsOf(all.map((one) => one.totals));
  const hour = totalsOf(all.map((one) => one.hour));
  const runningBytes = all.reduce((sum, one) => sum + one.runningBytes, 0);
  const limits = new Map<string, Overview['rateLimits'][number]>();
  for (const limit of all.flatMap((one) => one.rateLimits).sort((one, other) => one.at.localeCompare(other.at)))
    limits.set(limit.upstream, limit);
  return {
    ...own,
    totals,
    hour,
    ...shares({ totals, hour, runningBytes }),
    runningBytes,
    runningDownloads: all.reduce((sum, one) => sum + one.runningDownloads, 0),
    rateLimits: [...limits.values()],
  };
}

/** Bytes from upstreams are counted as they arrive, but bytes to clients only at the end of a
 *  response. So the bytes of running downloads are left out. */
function shares({
  totals,
  hour,
  runningBytes,
}: Pick<Overview, 'totals' | 'hour' | 'runningBytes'>): Pick<Overview, 'hitRate' | 'savedBytes'> {
  const served = hour.hits + hour.stale;
  const reads = served + hour.misses + hour.errors;
  return {
    hitRate: reads === 0 ? null : served / reads,
    savedBytes: Math.min(totals.sentBytes, Math.max(0, totals.sentBytes - totals.upstreamBytes + runningBytes)),
  };
}

type Replica = Replicas['replicas'][number];

function ownReplica({ replica, version, startedAt, snapshot }: TrafficOptions): Replica {
  return {
    address: replica,
    self: true,
    reachable: true,
    problem: null,
    version,
    startedAt: startedAt.toISOString(),
    memoryBytes: process.memoryUsage.rss(),
    runningDownloads: snapshot().total,
  };
}

/** A replica that does not answer. */
function lostReplica({ address, problem }: { address: string; problem: string }): Replica {
  return {
    address,
    self: false,
    reachable: false,
    problem,
    version: null,
    startedAt: null,
    memoryBytes: null,
    runningDownloads: null,
  };
}
