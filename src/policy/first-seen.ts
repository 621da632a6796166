import { LRUCache } from 'lru-cache';
import { json } from 'node:stream/consumers';
import { inParallel } from '../async/parallel.ts';
import { fieldsOf, textOf } from '../io/untrusted.ts';
import type { Digest } from '../oci/digest.ts';
import { blobKey, seenKey } from '../store/keys.ts';
import { bytesSource, type Store } from '../store/store.ts';

/** When any replica of this registry first saw a manifest. */
export interface FirstSeen {
  /** Milliseconds since the epoch. A digest that no replica has seen counts as seen now.
   *  @throws OciError UNAVAILABLE: the store does not answer */
  at(this: void, digest: Digest, signal: AbortSignal): Promise<number>;
  /** As `at`, but without recording anything; undefined: no replica has seen the digest. */
  recall(this: void, digest: Digest, signal: AbortSignal): Promise<number | undefined>;
  /** Records that the contents of a manifest were seen at the same time as the manifest, unless
   *  they were seen earlier. @throws OciError UNAVAILABLE */
  inherit(this: void, digests: readonly Digest[], at: number, signal: AbortSignal): Promise<void>;
}

/** Entries, each a few hundred bytes. */
const IN_MEMORY = 50_000;
const MAX_RECORD_SIZE = 1024;
const WRITES_AT_ONCE = 8;

/** @param stores `records` has the records; `blobs` may have the manifest itself, which was stored
 *  after it was first seen */
export function createFirstSeen({ records, blobs }: { records: Store; blobs: Store }, now: () => number = Date.now): FirstSeen {
  const known = new LRUCache<Digest, number>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });

  async function write(digest: Digest, at: number, signal: AbortSignal): Promise<void> {
    await records.write(seenKey(digest), bytesSource(Buffer.from(JSON.stringify({ at: new Date(at).toISOString() }))), { signal });
  }

  /** Manifests stored before registry.policy.minimumAge was set have no record. */
  async function find(digest: Digest, signal: AbortSignal): Promise<{ at: number; isRecorded: boolean } | undefined> {
    const recorded = await readRecord(records, digest, signal);
    if (recorded !== undefined) return { at: recorded, isRecorded: true };
    const stored = await blobs.stat(blobKey(digest), { signal });
    return stored === undefined ? undefined : { at: Math.min(stored.modified.getTime(), now()), isRecorded: false };
  }

  return {
    async at(digest, signal) {
      const remembered = known.get(digest);
      if (remembered !== undefined) return remembered;
      const found = (await find(digest, signal)) ?? { at: now(), isRecorded: false };
      known.set(digest, found.at);
      if (!found.isRecorded) await write(digest, found.at, signal);
      return found.at;
    },
    recall: async (digest, signal) => known.get(digest) ?? (await find(digest, signal))?.at,
    async inherit(digests, at, signal) {
      await inParallel(digests, WRITES_AT_ONCE, async (digest) => {
        const own = known.get(digest) ?? (await readRecord(records, digest, signal)) ?? Infinity;
        known.set(digest, Math.min(own, at));
        if (own > at) await write(digest, at, signal);
      });
    },
  };
}

async function readRecord(records: Store, digest: Digest, signal: AbortSignal): Promise<number | undefined> {
  const found = await records.read(seenKey(digest), { signal });
  if (found === undefined || found.size > MAX_RECORD_SIZE) return undefined;
  try {
    const at = Date.parse(textOf(fieldsOf(await json(found.body))['at']) ?? '');
    return Number.isNaN(at) ? undefined : at;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
