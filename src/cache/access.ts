import { LRUCache } from 'lru-cache';
import { parseInTurn } from '../async/long-steps.ts';
import { singleFlight } from '../async/single-flight.ts';
import { BLOB_MEDIA_TYPE, parseManifest, type Descriptor } from '../oci/descriptor.ts';
import { withoutCapability } from '../oci/capability.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { memberKey } from '../store/keys.ts';
import type { RecordStore } from './record-store.ts';

/** Which repository may serve which digest (promise 12). Repositories start with their upstream's
 *  name. */
export interface AccessRecords {
  /** Reads the record that the upstream once served the digest under this name. */
  find(repository: Repository, digest: Digest, signal: AbortSignal): Promise<Descriptor | undefined>;
  /** The same record, if it is in memory. */
  recall(repository: Repository, digest: Digest): Recalled | undefined;
  /** Records that the upstream has just served the digest under this name. */
  grant(repository: Repository, descriptor: Descriptor): void;
  /** Writes a record again that pruning may have removed. It proves no more than before. */
  restore(repository: Repository, descriptor: Descriptor): void;
  /** When the upstream last confirmed a record in memory, in ms on the monotonic clock. */
  provedAt(repository: Repository, digest: Digest): number | undefined;
  /** Forgets that the repository may serve the digest. */
  revoke(repository: Repository, digest: Digest): void;
  /** Notes the sizes of the blobs of a manifest that the upstream has served under this name.
   *  @returns these blobs; none if they were noted before */
  noteManifest(repository: Repository, manifest: Descriptor, bytes: Uint8Array): Promise<readonly Descriptor[]>;
  /** The size of a blob in bytes, as stated by a manifest of this repository that this process has
   *  seen. This does not prove access to a private blob: upstreams accept manifests that name blobs
   *  which the repository does not have. */
  statedSize(repository: Repository, digest: Digest): number | undefined;
}

/** A record in memory. */
export interface Recalled {
  descriptor: Descriptor;
  /** The sizes of the blobs of this manifest were noted. */
  isNoted: boolean;
}

/** Entries, each a few hundred bytes. */
const IN_MEMORY = 50_000;
/** Milliseconds; records have a shorter limit of their own. */
const READ_TIMEOUT_MS = 10_000;
/** A record is written again when the upstream serves the digest after this long: it may have been
 *  pruned with its blob. */
const REWRITE_AFTER_MS = 3_600_000;
/** A record of another machine may be this far ahead of this machine's clock, in ms. */
const CLOCK_TOLERANCE_MS = 5000;

interface Known {
  descriptor: Descriptor;
  /** On the monotonic clock; -Infinity: another process wrote the record. */
  writtenAt: number;
  provedAt: number;
  /** The sizes of the blobs of this manifest were noted. */
  isNoted: boolean;
}

/** `now`: a clock that is never set back, in ms. */
export function createAccessRecords(records: RecordStore, now: () => number = () => performance.now()): AccessRecords {
  // `max` would allocate its arrays for the full number of entries at once.
  const known = new LRUCache<string, Known>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const sizes = new LRUCache<string, number>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const share = singleFlight<Descriptor | undefined>({ timeoutMs: READ_TIMEOUT_MS });

  /** Only the proofs of capabilities expire, so only their records carry a time. */
  function write(repository: Repository, { digest, mediaType, size }: Descriptor, provedAt: number): void {
    const isTimed = withoutCapability(repository) !== repository && provedAt > -Infinity;
    const time = isTimed ? { provedAt: new Date(Date.now() - (now() - provedAt)).toISOString() } : {};
    records.put(memberKey(repository, digest), { mediaType, size, ...time });
  }

  /** Reads a record into memory. */
  async function read(repository: Repository, digest: Digest, signal: AbortSignal): Promise<Descriptor | undefined> {
    const image = imageOf(repository, digest);
    const record = (await records.read(memberKey(repository, digest), signal)) as StoredRecord | undefined;
    const meanwhile = known.get(image);
    if (meanwhile !== undefined) return meanwhile.descriptor; // granted while the record was being read
    if (typeof record?.mediaType !== 'string' || typeof record.size !== 'number') return undefined;
    const descriptor = { digest, mediaType: record.mediaType, size: record.size };
    known.set(image, { descriptor, writtenAt: -Infinity, provedAt: timeOf(record.provedAt, now()), isNoted: false });
    return descriptor;
  }

  return {
    async find(repository, digest, signal) {
      const image = imageOf(repository, digest);
      return known.get(image)?.descriptor ?? share(image, signal, (signal) => read(repository, digest, signal));
    },
    recall(repository, digest) {
      const found = known.get(imageOf(repository, digest));
      return found === undefined ? undefined : { descriptor: found.descriptor, isNoted: found.isNoted };
    },
    grant(repository, { digest, mediaType: given, size }) {
      const image = imageOf(repository, digest);
      const before = known.get(image);
      // Some upstreams also serve manifests as blobs: keep the media type of the manifest.
      const mediaType = given === BLOB_MEDIA_TYPE ? (before?.descriptor.mediaType ?? given) : given;
      const same = before?.descriptor.mediaType === mediaType && before.descriptor.size === size;
      const provedAt = now();
      const isWritten = same && provedAt - before.writtenAt < REWRITE_AFTER_MS;
      const descriptor = { digest, mediaType, size };
      const writtenAt = isWritten ? before.writtenAt : provedAt;
      known.set(image, { descriptor, writtenAt, provedAt, isNoted: before?.isNoted ?? false });
      if (!isWritten) write(repository, descriptor, provedAt);
    },
    restore(repository, descriptor) {
      const image = imageOf(repository, descriptor.digest);
      const before = known.get(image);
      const provedAt = before?.provedAt ?? -Infinity;
      known.set(image, { descriptor, writtenAt: now(), provedAt, isNoted: before?.isNoted ?? false });
      write(repository, descriptor, provedAt);
    },
    provedAt: (repository, digest) => known.get(imageOf(repository, digest))?.provedAt,
    revoke(repository, digest) {
      known.delete(imageOf(repository, digest));
      records.remove(memberKey(repository, digest));
    },
    async noteManifest(repository, manifest, bytes) {
      const record = known.get(imageOf(repository, manifest.digest));
      if (record?.isNoted === true) return [];
      if (record !== undefined) record.isNoted = true;
      const blobs = await blobsOf(bytes, manifest.mediaType);
      for (const { digest, size } of blobs) sizes.set(imageOf(repository, digest), size);
      return blobs;
    },
    statedSize: (repository, digest) => sizes.get(imageOf(repository, digest)),
  };
}

/** A record in the store, not checked yet. */
interface StoredRecord {
  mediaType?: unknown;
  size?: unknown;
  provedAt?: unknown;
}

/** When a record says that the upstream last confirmed it, on the clock that shows `now`. Records
 *  without a time, and those from the future, count as very old. */
function timeOf(written: unknown, now: number): number {
  const age = Date.now() - (typeof written === 'string' ? Date.parse(written) : Number.NaN);
  return age >= -CLOCK_TOLERANCE_MS ? now - Math.max(0, age) : -Infinity;
}

/** Cheaper to build than the key of the record in the store; every request builds it. */
function imageOf(repository: Repository, digest: Digest): string {
  return `${repository}@${digest}`;
}

/** The blobs that a manifest names; none if the manifest cannot be parsed. */
async function blobsOf(bytes: Uint8Array, mediaType: string): Promise<Descriptor[]> {
  try {
    return (await parseInTurn(bytes.length, () => parseManifest(bytes, mediaType))).blobs;
  } catch {
    return []; // clients may understand manifests that this program cannot parse
  }
}
