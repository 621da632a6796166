import type { Metrics } from './metrics.ts';

/** What the cache had to do for a read: nothing beyond its store; ask upstream; serve what it knows although upstream could not
 *  confirm it; fail. */
export type ReadOutcome = 'hit' | 'miss' | 'stale' | 'error';
export type ReadKind = 'manifest' | 'blob' | 'tags' | 'referrers';
/** ok: it answered what was asked. absent: 404. refused: 401, 403. limited: 429. failed: 5xx, nonsense, silence, no connection.
 *  proxy: the way out failed, not the upstream. */
export type UpstreamOutcome = 'ok' | 'absent' | 'refused' | 'limited' | 'failed' | 'proxy';
/** stored: whole and kept. uncached: passed on whole, not kept. failed: ended in the middle or with a wrong digest. */
export type FillOutcome = 'stored' | 'uncached' | 'failed';
export type PeerOutcome = 'served' | 'failed';
export type StorageOperation = 'stat' | 'read' | 'write' | 'remove' | 'list';

/** What the registry counts of itself. Plain functions: who counts knows nothing of who shows. `upstream` is always a
 *  configured name. */
export interface RegistryMetrics {
  /** An HTTP answer, and the bytes of its body. `upstream`: `unknown` or `none` where no configured one was named. */
  answered(upstream: string, answer: { kind: string; status: number; bytes: number }): void;
  read(upstream: string, kind: ReadKind, outcome: ReadOutcome): void;
  /** One request to an upstream, mirrors included; `seconds` until its headers, or its failure. */
  observeUpstream(upstream: string, outcome: UpstreamOutcome, seconds: number): void;
  /** Bytes of bodies that came from upstream. */
  received(upstream: string, bytes: number): void;
  fillStarted(upstream: string): void;
  fillEnded(upstream: string, outcome: FillOutcome): void;
  /** What Docker Hub's `ratelimit-remaining` said last. */
  rateLimit(upstream: string, remaining: number): void;
  /** Blobs that are whole locally and wait to be stored. */
  uploadQueue(blobs: number, bytes: number): void;
  storageError(operation: StorageOperation): void;
  /** What the local tier holds. */
  localTier(bytes: number): void;
  pruned(objects: number, bytes: number): void;
  /** One question to another replica: it answered, or what it should have given came from elsewhere. */
  askedPeer(outcome: PeerOutcome): void;
  /** Bytes of bodies that came from other replicas. */
  receivedFromPeers(bytes: number): void;
  /** Replicas that answer, this one among them. */
  livePeers(count: number): void;
}

export function createRegistryMetrics(metrics: Metrics): RegistryMetrics {
  const answers = metrics.counter('answers_total', 'HTTP answers by upstream, kind and status.', ['upstream', 'kind', 'status']);
  const sent = metrics.counter('sent_bytes_total', 'Bytes of bodies sent to clients.', ['upstream']);
  const reads = metrics.counter('requests_total', 'Reads by upstream, kind and outcome: hit, miss, stale, error.', [
    'upstream',
    'kind',
    'outcome',
  ]);
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
  const fills = metrics.counter('fills_total', 'Ended downloads of blobs by outcome: stored, uncached, failed.', ['upstream', 'outcome']);
  const remaining = metrics.gauge('ratelimit_remaining', 'Pulls that the upstream still allows, as it said last.', ['upstream']);
  const queued = metrics.gauge('upload_queue_blobs', 'Blobs that wait to be stored.', []);
  const queuedBytes = metrics.gauge('upload_queue_bytes', 'Bytes that wait to be stored.', []);
  const storageErrors = metrics.counter('storage_errors_total', 'Failed calls to the store by operation.', ['operation']);
  const local = metrics.gauge('local_bytes', 'Bytes in the local tier.', []);
  const prunedObjects = metrics.counter('pruned_objects_total', 'Objects removed by pruning.', []);
  const prunedBytes = metrics.counter('pruned_bytes_total', 'Bytes removed by pruning.', []);
  const peers = metrics.counter('peer_requests_total', 'Questions to other replicas by outcome: served, failed.', ['outcome']);
  const peerBytes = metrics.counter('peer_received_bytes_total', 'Bytes of bodies received from other replicas.', []);
  const live = metrics.gauge('peers_live', 'Replicas that answer, this one among them; 0 without peers.', []);
  let running = 0;
  metrics.watch('fills_running', 'Downloads of blobs that run now.', () => running);

  return {
    answered(upstream, { kind, status, bytes }) {
      answers({ upstream, kind, status: String(status) });
      if (bytes > 0) sent({ upstream }, bytes);
    },
    read: (upstream, kind, outcome) => reads({ upstream, kind, outcome }),
    observeUpstream(upstream, outcome, seconds) {
      asked({ upstream, outcome });
      latency({ upstream }, seconds);
    },
    received: (upstream, bytes) => received({ upstream }, bytes),
    fillStarted() {
      running++;
    },
    fillEnded(upstream, outcome) {
      running--;
      fills({ upstream, outcome });
    },
    rateLimit: (upstream, left) => remaining({ upstream }, left),
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
    askedPeer: (outcome) => peers({ outcome }),
    receivedFromPeers: (bytes) => peerBytes({}, bytes),
    livePeers: (count) => live({}, count),
  };
}

const nothing = () => undefined;

/** Counts nothing. */
export const noRegistryMetrics: RegistryMetrics = {
  answered: nothing,
  read: nothing,
  observeUpstream: nothing,
  received: nothing,
  fillStarted: nothing,
  fillEnded: nothing,
  rateLimit: nothing,
  uploadQueue: nothing,
  storageError: nothing,
  localTier: nothing,
  pruned: nothing,
  askedPeer: nothing,
  receivedFromPeers: nothing,
  livePeers: nothing,
};
