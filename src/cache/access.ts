import { LRUCache } from 'lru-cache';
import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { memberKey } from '../store/keys.ts';
import { singleFlight } from '../async/single-flight.ts';
import type { Records } from './record-store.ts';

/** Which repository may serve which digest: it may when upstream has once given it under that name (promise 12). */
export interface Membership {
  find(repository: Repository, digest: Digest, signal: AbortSignal): Promise<Descriptor | undefined>;
  /** Upstream has just given it. */
  add(repository: Repository, descriptor: Descriptor): void;
}

const IN_MEMORY = 50_000;
/** Milliseconds; records have a shorter limit of their own. */
const READ_LIMIT = 10_000;
/** A record is written again when upstream gives the digest after this long, in ms: it may have been pruned meanwhile, with its blob. */
const REWRITE_AFTER = 3_600_000;

interface Known {
  descriptor: Descriptor;
  /** Milliseconds since the epoch; 0: another process did it. */
  writtenAt: number;
}

export function createMembership(records: Records): Membership {
  const known = new LRUCache<string, Known>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const share = singleFlight<Descriptor | undefined>({ timeoutMs: READ_LIMIT });
  return {
    async find(repository, digest, signal) {
      const key = memberKey(repository, digest);
      const remembered = known.get(key);
      if (remembered !== undefined) return remembered.descriptor;
      return share(key, signal, async (signal) => {
        const record = (await records.read(key, signal)) as { mediaType?: unknown; size?: unknown } | undefined;
        const meanwhile = known.get(key);
        if (meanwhile !== undefined) return meanwhile.descriptor; // upstream has given it while the record was read
        if (typeof record?.mediaType !== 'string' || typeof record.size !== 'number') return undefined;
        const descriptor = { digest, mediaType: record.mediaType, size: record.size };
        known.set(key, { descriptor, writtenAt: 0 });
        return descriptor;
      });
    },
    add(repository, { digest, mediaType: given, size }) {
      const key = memberKey(repository, digest);
      const before = known.get(key);
      // Some upstreams give a manifest by its digest as a blob too; it is a manifest all the same.
      const mediaType = given === BLOB_MEDIA_TYPE ? (before?.descriptor.mediaType ?? given) : given;
      const now = Date.now();
      const same = before?.descriptor.mediaType === mediaType && before.descriptor.size === size;
      if (same && now - before.writtenAt < REWRITE_AFTER) return;
      known.set(key, { descriptor: { digest, mediaType, size }, writtenAt: now });
      records.write(key, { mediaType, size });
    },
  };
}
