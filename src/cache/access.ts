import { LRUCache } from 'lru-cache';
import { parseInTurn } from '../async/long-steps.ts';
import { singleFlight } from '../async/single-flight.ts';
import { BLOB_MEDIA_TYPE, parseManifest, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { memberKey } from '../store/keys.ts';
import type { RecordStore } from './record-store.ts';

/** Which repository may serve which digest (promise 12). Repositories start with their upstream's name. */
export interface AccessRecords {
  /** Reads the record that the upstream once served the digest under this name. */
  find(repository: Repository, digest: Digest, signal: AbortSignal): Promise<Descriptor | undefined>;
  /** The same record, if it is in memory. */
  recall(repository: Repository, digest: Digest): Descriptor | undefined;
  /** Records that the upstream has just served the digest under this name. */
  grant(repository: Repository, descriptor: Descriptor): void;
  /** Notes the blobs of a manifest that the upstream has served under this name: the repository may
   *  serve them too. Undefined: the manifest was noted before. */
  noteManifest(repository: Repository, manifest: Descriptor, bytes: Uint8Array): Promise<void> | undefined;
  /** The descriptor of a blob, from a manifest of this repository that this process has seen. */
  findNamed(repository: Repository, digest: Digest): Descriptor | undefined;
}

/** Entries, each a few hundred bytes. */
const IN_MEMORY = 50_000;
/** Milliseconds; records have a shorter limit of their own. */
const READ_TIMEOUT_MS = 10_000;
/** A record is written again when the upstream serves the digest after this long: it may have been pruned with its blob. */
const REWRITE_AFTER_MS = 3_600_000;

interface Known {
  descriptor: Descriptor;
  /** On the monotonic clock; -Infinity: another process wrote the record. */
  writtenAt: number;
}

/** `now`: a clock that is never set back, in ms. */
export function createAccessRecords(records: RecordStore, now: () => number = () => performance.now()): AccessRecords {
  // `max` would allocate its arrays for the full number of entries at once.
  const known = new LRUCache<string, Known>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const named = new LRUCache<string, Descriptor>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const noted = new LRUCache<string, true>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const share = singleFlight<Descriptor | undefined>({ timeoutMs: READ_TIMEOUT_MS });

  async function noteBlobs(repository: Repository, bytes: Uint8Array, mediaType: string): Promise<void> {
    for (const { digest, size } of await blobsOf(bytes, mediaType)) {
      named.set(`${repository}@${digest}`, { digest, mediaType: BLOB_MEDIA_TYPE, size });
    }
  }

  return {
    async find(repository, digest, signal) {
      const key = memberKey(repository, digest);
      const remembered = known.get(key);
      if (remembered !== undefined) return remembered.descriptor;
      return share(key, signal, async (signal) => {
        const record = (await records.read(key, signal)) as { mediaType?: unknown; size?: unknown } | undefined;
        const meanwhile = known.get(key);
        if (meanwhile !== undefined) return meanwhile.descriptor; // granted while the record was being read
        if (typeof record?.mediaType !== 'string' || typeof record.size !== 'number') return undefined;
        const descriptor = { digest, mediaType: record.mediaType, size: record.size };
        known.set(key, { descriptor, writtenAt: -Infinity });
        return descriptor;
      });
    },
    recall: (repository, digest) => known.get(memberKey(repository, digest))?.descriptor,
    grant(repository, { digest, mediaType: given, size }) {
      const key = memberKey(repository, digest);
      const before = known.get(key);
      // Some upstreams also serve manifests as blobs: keep the media type of the manifest.
      const mediaType = given === BLOB_MEDIA_TYPE ? (before?.descriptor.mediaType ?? given) : given;
      const same = before?.descriptor.mediaType === mediaType && before.descriptor.size === size;
      if (same && now() - before.writtenAt < REWRITE_AFTER_MS) return;
      known.set(key, { descriptor: { digest, mediaType, size }, writtenAt: now() });
      records.put(key, { mediaType, size });
    },
    noteManifest(repository, { digest, mediaType }, bytes) {
      const key = `${repository}@${digest}`;
      if (noted.has(key)) return undefined;
      noted.set(key, true);
      return noteBlobs(repository, bytes, mediaType);
    },
    findNamed: (repository, digest) => named.get(`${repository}@${digest}`),
  };
}

/** The blobs that a manifest names; none if the manifest cannot be parsed. */
async function blobsOf(bytes: Uint8Array, mediaType: string): Promise<Descriptor[]> {
  try {
    return (await parseInTurn(bytes.length, () => parseManifest(bytes, mediaType))).blobs;
  } catch {
    return []; // clients may understand manifests that this program cannot parse
  }
}
