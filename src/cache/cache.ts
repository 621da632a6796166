import { LRUCache } from 'lru-cache';
import { singleFlight, type SingleFlight } from '../async/single-flight.ts';
import { createDownloads, type BlobKeeper, type Downloads } from '../download/downloads.ts';
import type { Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import type { Manifest, Registry } from '../oci/registry.ts';
import type { Peers } from '../peers/peers.ts';
import type { Store } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { createAccessRecords, type AccessRecords } from './access.ts';
import { createLateProofs, type LateProofs } from './late-proofs.ts';
import { createLocalBlobs, type LocalBlobs } from './local-blobs.ts';
import { createRecordStore, type RecordStore } from './record-store.ts';
import { createPublicBlobs, type PublicBlobs } from './public-blobs.ts';
import { createReferrerMemory, type ReferrerMemory } from './referrer-memory.ts';
import { createTagMemory, type TagMemory } from './tag-memory.ts';
import { createUsage, type Usage } from './usage.ts';

/** Where a registry stores blobs, manifests and records. */
export interface CacheStorage extends BlobKeeper {
  /** On this machine: the storage itself, or the tier in front of it. */
  local: Store;
  /** The storage behind the local tier, when there is one. */
  remote: Store | undefined;
  /** Tags, access records, usage. */
  records: Store;
  /** Call it when a verified blob is in `local`. A blob from a replica is stored by that
   *  replica. */
  arrived(this: void, digest: Digest, size: number, from: 'upstream' | 'replica'): void;
}

/** An upstream as the cache reads it. */
export interface Upstream {
  /** The upstream with its mirrors. */
  registry: Registry;
  /** The upstream without its mirrors: only its answers prove that a blob belongs to a repository.
   *  The same as `registry` if there are no mirrors. */
  origin: Registry;
}

export function hasMirrors({ registry, origin }: Upstream): boolean {
  return registry !== origin;
}

/** A repository under two names: `repository` is its name at the upstream; `name` has the
 *  upstream's name in front, and is used everywhere else. */
export interface Target {
  repository: Repository;
  name: Repository;
}

/** The state that all upstreams of a registry share. */
export interface Cache {
  storage: CacheStorage;
  downloads: Downloads;
  localBlobs: LocalBlobs;
  access: AccessRecords;
  publicBlobs: PublicBlobs;
  lateProofs: LateProofs;
  records: RecordStore;
  tags: TagMemory;
  referrers: ReferrerMemory;
  usage: Usage;
  /** Manifests in memory, by digest. */
  manifests: LRUCache<Digest, Uint8Array>;
  /** Descriptors of manifests that were not fetched, from HEAD, by `name@digest`: enough to answer
   *  HEAD, but no proof of access. */
  announced: LRUCache<string, Descriptor>;
  /** Blobs for which a mirror or a replica sent wrong bytes, by `name@digest`. */
  distrusted: LRUCache<string, true>;
  /** Running GET and HEAD requests to upstream, each shared by all requests that wait for it. */
  fetching: SingleFlight<Manifest>;
  describing: SingleFlight<Descriptor>;
  peers: Pick<Peers, 'ownerOf'>;
  /** True for requests from other replicas: they are answered from this replica or its upstreams,
   *  never from a third replica. */
  servesPeers: boolean;
  metrics: Pick<RegistryMetrics, 'read'>;
  log: Log;
}

export interface CacheOptions {
  storage: CacheStorage;
  /** For the spool files; on the same file system as `storage.local`. */
  spoolDirectory: string;
  peers: Pick<Peers, 'ownerOf'>;
  metrics: Pick<RegistryMetrics, 'read' | 'downloadStarted' | 'downloadEnded'>;
  log: Log;
}

/** Bytes of manifests that stay in memory. */
const MANIFEST_BYTES_IN_MEMORY = 32 * 2 ** 20;
const QUESTION_TIMEOUT_MS = 25_000;
/** How long a request to upstream continues after its last caller has left, in ms. */
const LINGER_MS = 1000;
/** Long, because registries that store a blob before they serve it are slow to answer. */
const PROOF_TIMEOUT_MS = 60_000;
const ANNOUNCED_MANIFESTS = 10_000;
const DISTRUSTED_BLOBS = 1000;

export async function createCache({ storage, spoolDirectory, peers, metrics, log }: CacheOptions): Promise<Cache> {
  const records = createRecordStore(storage.records, log);
  return {
    storage,
    downloads: await createDownloads({ keeper: storage, spoolDirectory, log, metrics }),
    localBlobs: createLocalBlobs(storage.local, log),
    access: createAccessRecords(records),
    publicBlobs: createPublicBlobs(),
    lateProofs: createLateProofs({ log }),
    records,
    tags: createTagMemory(),
    referrers: createReferrerMemory(),
    usage: createUsage(records),
    manifests: new LRUCache({ maxSize: MANIFEST_BYTES_IN_MEMORY, sizeCalculation: (bytes) => Math.max(1, bytes.length) }),
    announced: new LRUCache({ maxSize: ANNOUNCED_MANIFESTS, sizeCalculation: () => 1 }),
    distrusted: new LRUCache({ maxSize: DISTRUSTED_BLOBS, sizeCalculation: () => 1 }),
    fetching: singleFlight({ timeoutMs: QUESTION_TIMEOUT_MS, lingerMs: LINGER_MS }),
    describing: singleFlight({ timeoutMs: PROOF_TIMEOUT_MS, lingerMs: LINGER_MS }),
    peers,
    servesPeers: false,
    metrics,
    log,
  };
}
