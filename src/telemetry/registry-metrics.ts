import type { Metrics } from './metrics.ts';

/** How a read was answered. hit: from the store. miss: from upstream. stale: from the store,
 *  although upstream could not confirm it. error: it failed. */
export type ReadOutcome = 'hit' | 'miss' | 'stale' | 'error';
export type ReadKind = 'manifest' | 'blob' | 'tags' | 'referrers';
/** ok: a usable answer. absent: 404. refused: 401, 403. limited: 429. failed: 5xx, an unusable
 *  answer, silence, no connection. proxy: the proxy failed, not the upstream. */
export type UpstreamOutcome = 'ok' | 'absent' | 'refused' | 'limited' | 'failed' | 'proxy';
/** How a download ended. stored: complete and kept. uncached: streamed to its clients completely,
 *  not kept. failed: cut, or the digest is wrong. */
export type DownloadOutcome = 'stored' | 'uncached' | 'failed';
export type PeerOutcome = 'served' | 'failed';
export type StorageOperation = 'stat' | 'read' | 'write' | 'remove' | 'list';

/** How many pulls an upstream still allows. */
export interface PullLimit {
  remaining: number;
  /** The number of pulls that the upstream allows; undefined: it does not report it. */
  limit: number | undefined;
  /** The time for which `limit` holds; undefined: the upstream does not say. */
  windowSeconds: number | undefined;
}

/** The metrics of the registry. Plain functions, so that callers know nothing of Prometheus.
 *  `upstream` is a configured name, or a host. */
export interface RegistryMetrics {
  /** A response to a client, and the bytes of its body. `upstream` is `unknown` or `none` if the
   *  request named no configured one. */
  answered(upstream: string, answer: { kind: string; status: number; bytes: number }): void;
  /** A read of the cache. */
  read(upstream: string, kind: ReadKind, outcome: ReadOutcome): void;
  /** A request to an upstream or one of its mirrors. `seconds`: until its headers, or its
   *  failure. */
  observeUpstream(upstream: string, outcome: UpstreamOutcome, seconds: number): void;
  /** Bytes of bodies received from upstream. */
  received(upstream: string, bytes: number): void;
  downloadStarted(upstream: string): void;
  downloadEnded(upstream: string, outcome: DownloadOutcome): void;
  /** What Docker Hub's headers `ratelimit-remaining` and `ratelimit-limit` last said. */
  rateLimit(upstream: string, limit: PullLimit): void;
  /** Blobs that are complete in the local tier and not yet uploaded to S3. */
  uploadQueue(blobs: number, bytes: number): void;
  storageError(operation: StorageOperation): void;
  /** Bytes in the local tier. */
  localTier(bytes: number): void;
  pruned(objects: number, bytes: number): void;
  /** The last run of pruning in this process has failed, or not. */
  pruningFails(isFailing: boolean): void;
  /** A scheduled warming has finished: how many images are warm or not, and the bytes that were
   *  read. */
  warmed(result: { warm: number; failed: number; skipped: number; bytes: number }): void;
  /** A request to another replica. failed: the content came from elsewhere instead. */
  askedPeer(outcome: PeerOutcome): void;
  /** Bytes of bodies received from other replicas. */
  receivedFromPeers(bytes: number): void;
  /** Replicas that are alive, including this one. */
  livePeers(count: number): void;
  /** registry.policy has refused a pull: by `allow`, by `deny` or by `minimumAge`. */
  denied(upstream: string, rule: 'allow' | 'deny' | 'age'): void;
  /** A name with an id of no pull secret was requested. */
  unknownPrivateName(this: void): void;
  /** The registry sent an agent to a source for a blob of this size. */
  placed(place: 'registry' | 's3' | 'node'): void;
  /** Reports at each scrape how many nodes share blobs and can be reached. */
  watchSharingNodes(read: () => number): void;
  /** Reports at each scrape how many tags are served although their upstream has deleted them. */
  watchGone(read: () => ReadonlyMap<string, number>): void;
}

/** The most upstreams that have their own labels; all others share `other`. */
const MAX_UPSTREAM_LABELS = 100;

export function createRegistryMetrics(metrics: Metrics): RegistryMetrics {
  const labelOf = createUpstreamLabels();
  return {
    ...clientMetrics(metrics, labelOf),
    ...upstreamMetrics(metrics, labelOf),
    ...storageMetrics(metrics),
    ...peerMetrics(metrics),
    ...nodeMetrics(metrics),
  };
}

type LabelOf = (upstream: string) => string;

/** Hosts that clients name become labels, so their number is limited. */
function createUpstreamLabels(): LabelOf {
  const upstreams = new Set<string>();
  return (upstream) => {
    if (upstreams.has(upstream)) return upstream;
    if (upstreams.size >= MAX_UPSTREAM_LABELS) return 'other';
    upstreams.add(upstream);
    return upstream;
  };
}

function clientMetrics(
  metrics: Metrics,
  labelOf: LabelOf,
): Pick<RegistryMetrics, 'answered' | 'read' | 'denied' | 'unknownPrivateName' | 'watchGone'> {
  const responses = metrics.counter(
    'http_requests_total',
    'HTTP requests of clients by upstream, kind and status of the response.',
    ['upstream', 'kind', 'status'],
    'answers_total',
  );
  const sent = metrics.counter('sent_bytes_total', 'Bytes of bodies sent to clients.', ['upstream']);
  const reads = metrics.counter(
    'cache_reads_total',
    'Reads of the cache by upstream, kind and outcome: hit, miss, stale, error.',
    ['upstream', 'kind', 'outcome'],
    'requests_total',
  );
  const refusals = metrics.counter('denied_total', 'Requests that registry.policy refused, by upstream and rule: allow, deny, age.', [
    'upstream',
    'rule',
  ]);
  const unknownNames = metrics.counter(
    'unknown_private_names_total',
    'Requests for private names whose pull secret does not exist: it was deleted, or a client is guessing names.',
    [],
  );
  let readGone: () => ReadonlyMap<string, number> = () => new Map();
  metrics.table('gone_upstream', 'Tags that the upstream has deleted and that are served from the cache.', ['upstream'], () =>
    [...readGone()].map(([upstream, value]) => ({ labels: { upstream: labelOf(upstream) }, value })),
  );
  return {
    answered(name, { kind, status, bytes }) {
      const upstream = labelOf(name);
      responses({ upstream, kind, status: String(status) });
      if (bytes > 0) sent({ upstream }, bytes);
    },
    read: (upstream, kind, outcome) => reads({ upstream: labelOf(upstream), kind, outcome }),
    denied: (upstream, rule) => refusals({ upstream: labelOf(upstream), rule }),
    unknownPrivateName: () => unknownNames({}),
    watchGone(read) {
      readGone = read;
    },
  };
}

function upstreamMetrics(
  metrics: Metrics,
  labelOf: LabelOf,
): Pick<RegistryMetrics, 'observeUpstream' | 'received' | 'downloadStarted' | 'downloadEnded' | 'rateLimit'> {
  const asked = metrics.counter(
    'upstream_requests_total',
    'Requests to upstreams by outcome: ok, absent, refused, limited, failed, proxy.',
    ['upstream', 'outcome'],
  );
  const latency = metrics.histogram('upstream_seconds', "Seconds until an upstream's headers.", {
    labels: ['upstream'],
    buckets: [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20],
  });
  const received = metrics.counter('received_bytes_total', 'Bytes of bodies received from upstreams.', ['upstream']);
  const downloads = metrics.counter(
    'downloads_total',
    'Finished downloads of blobs by upstream and outcome: stored, uncached, failed.',
    ['upstream', 'outcome'],
    'fills_total',
  );
  const remaining = metrics.gauge('ratelimit_remaining', 'Pulls that the upstream still allows, by its last response.', ['upstream']);
  let running = 0;
  metrics.watch('downloads_running', 'Running downloads of blobs.', () => running);
  metrics.watch('fills_running', 'Deprecated: use kube_registry_downloads_running.', () => running);
  return {
    observeUpstream(name, outcome, seconds) {
      const upstream = labelOf(name);
      asked({ upstream, outcome });
      latency({ upstream }, seconds);
    },
    received: (upstream, bytes) => received({ upstream: labelOf(upstream) }, bytes),
    downloadStarted() {
      running++;
    },
    downloadEnded(upstream, outcome) {
      running--;
      downloads({ upstream: labelOf(upstream), outcome });
    },
    rateLimit: (upstream, limit) => remaining({ upstream: labelOf(upstream) }, limit.remaining),
  };
}

function storageMetrics(
  metrics: Metrics,
): Pick<RegistryMetrics, 'uploadQueue' | 'storageError' | 'localTier' | 'pruned' | 'pruningFails' | 'warmed'> {
  const queued = metrics.gauge('upload_queue_blobs', 'Blobs that wait for their upload to S3.', []);
  const queuedBytes = metrics.gauge('upload_queue_bytes', 'Bytes that wait for their upload to S3.', []);
  const storageErrors = metrics.counter('storage_errors_total', 'Failed calls to the store by operation.', ['operation']);
  const local = metrics.gauge('local_bytes', 'Bytes in the local tier.', []);
  const prunedObjects = metrics.counter('pruned_objects_total', 'Objects removed by pruning.', []);
  const prunedBytes = metrics.counter('pruned_bytes_total', 'Bytes removed by pruning.', []);
  const pruningFailing = metrics.gauge('pruning_failing', '1: the last run of pruning has failed, and removed nothing or not all.', []);
  const warmedImages = metrics.counter('warmed_images_total', 'Images of scheduled warmings by outcome: warm, failed, skipped.', [
    'outcome',
  ]);
  const warmedBytes = metrics.counter('warmed_bytes_total', 'Bytes read by scheduled warmings.', []);
  return {
    uploadQueue(blobs, bytes) {
      queued({}, blobs);
      queuedBytes({}, bytes);
    },
    storageError: (operation) => storageErrors({ operation }),
    localTier: (bytes) => local({}, bytes),
    pruned(objects, bytes) {
      prunedObjects({}, objects);
      prunedBytes({}, bytes);
    },
    pruningFails: (isFailing) => pruningFailing({}, Number(isFailing)),
    warmed({ bytes, ...images }) {
      for (const [outcome, count] of Object.entries(images)) warmedImages({ outcome }, count);
      warmedBytes({}, bytes);
    },
  };
}

function peerMetrics(metrics: Metrics): Pick<RegistryMetrics, 'askedPeer' | 'receivedFromPeers' | 'livePeers'> {
  const peers = metrics.counter('peer_requests_total', 'Requests to other replicas by outcome: served, failed.', ['outcome']);
  const peerBytes = metrics.counter('peer_received_bytes_total', 'Bytes of bodies received from other replicas.', []);
  const live = metrics.gauge('peers_live', 'Replicas that are alive, including this one; 0 without peers.', []);
  return {
    askedPeer: (outcome) => peers({ outcome }),
    receivedFromPeers: (bytes) => peerBytes({}, bytes),
    livePeers: (count) => live({}, count),
  };
}

function nodeMetrics(metrics: Metrics): Pick<RegistryMetrics, 'placed' | 'watchSharingNodes'> {
  const placed = metrics.counter(
    'placed_blobs_total',
    'Requests of agents for blobs, by the source to which they were sent: registry, s3, node.',
    ['place'],
  );
  let readSharing = () => 0;
  metrics.watch('sharing_nodes', 'Nodes that share blobs and can be reached.', () => readSharing());
  return {
    placed: (place) => placed({ place }),
    watchSharingNodes(read) {
      readSharing = read;
    },
  };
}

const nothing = () => undefined;

/** For processes without metrics. */
export const noRegistryMetrics: RegistryMetrics = {
  answered: nothing,
  read: nothing,
  observeUpstream: nothing,
  received: nothing,
  downloadStarted: nothing,
  downloadEnded: nothing,
  rateLimit: nothing,
  uploadQueue: nothing,
  storageError: nothing,
  localTier: nothing,
  pruned: nothing,
  pruningFails: nothing,
  warmed: nothing,
  denied: nothing,
  askedPeer: nothing,
  receivedFromPeers: nothing,
  livePeers: nothing,
  unknownPrivateName: nothing,
  placed: nothing,
  watchSharingNodes: nothing,
  watchGone: nothing,
};
