import { MAX_MANIFEST_SIZE, OCI_INDEX } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isAbsent, isOciError } from '../oci/error.ts';
import { referrerListKey } from '../store/keys.ts';
import type { Cache, Target, Upstream } from './cache.ts';
import { REWRITE_AFTER_MS, type FreshnessPolicy } from './freshness.ts';
import type { RecordStore } from './record-store.ts';
import { LISTED, type CachedList, type ReferrerIndex } from './referrer-memory.ts';

/** Lists of referrers in memory and in the store. */
export interface ReferrerRecords {
  /** The cached list. */
  find(key: string, signal: AbortSignal): Promise<CachedList | undefined>;
  /** Asks the upstream for a list, and caches the answer. @throws OciError as the upstream does */
  ask(target: Target, digest: Digest, signal: AbortSignal): Promise<CachedList>;
}

/** A list to be cached. */
interface Answer {
  key: string;
  name: Target['name'];
  digest: Digest;
  list: CachedList;
  before: CachedList | undefined;
}

/** Whether a list is kept although the upstream has deleted its subject. */
export function outlives(list: CachedList | undefined, { onDeleted }: FreshnessPolicy): boolean {
  return onDeleted === 'serve' || list?.imported === true;
}

export function createReferrerRecords(upstream: Upstream, cache: Cache, policy: FreshnessPolicy): ReferrerRecords {
  const { records, access } = cache;
  const { cached, listed, now } = cache.referrers;

  /** Whether an empty list is worth a record: only for a known digest, so that requests for random
   *  digests leave nothing in the store. */
  async function isKnown(name: Target['name'], digest: Digest, signal: AbortSignal): Promise<boolean> {
    return listed.has(`${name}@${digest}`) || (await access.find(name, digest, signal)) !== undefined;
  }

  async function keep({ key, name, digest, list, before }: Answer, signal: AbortSignal): Promise<CachedList> {
    const isSame = before !== undefined && !before.refused && JSON.stringify(before.index) === JSON.stringify(list.index);
    const isWritten = isSame && list.checkedAt - before.writtenAt < REWRITE_AFTER_MS;
    const isOurs = list.index.manifests.length > 0 || (await isKnown(name, digest, signal));
    for (const entry of list.index.manifests.slice(0, LISTED)) listed.set(`${name}@${entry.digest}`, true);
    const kept = { ...list, writtenAt: isWritten ? before.writtenAt : isOurs ? list.checkedAt : -Infinity };
    cached.set(key, kept);
    if (!isWritten && isOurs) write(records, key, kept);
    return kept;
  }

  return {
    async find(key, signal) {
      const remembered = cached.get(key);
      if (remembered !== undefined) return remembered;
      const found = parseListRecord(await records.read(key, signal, 2 * MAX_MANIFEST_SIZE), { now: now(), tagTtl: policy.tagTtl });
      const meanwhile = cached.get(key);
      if (found === undefined || meanwhile !== undefined) return meanwhile;
      cached.set(key, found);
      return found;
    },

    async ask({ repository, name }, digest, signal) {
      const key = referrerListKey(name, digest);
      const asked = now();
      const recordedAs = new Date().toISOString();
      const before = cached.get(key);
      try {
        const { index: bytes } = await upstream.registry.referrers(repository, digest, { signal });
        const answer = parseIndex(JSON.parse(Buffer.from(bytes).toString()));
        // An upstream that has deleted an image lists nothing for it.
        const isDeleted = answer.manifests.length === 0 && before !== undefined && outlives(before, policy);
        const index = isDeleted ? before.index : answer;
        const never = { writtenAt: -Infinity, quietUntil: -Infinity, refused: false, imported: isDeleted && before.imported };
        return await keep(
          { key, name, digest, list: { index, size: bytes.length, checkedAt: asked, recordedAs, ...never }, before },
          signal,
        );
      } catch (error) {
        if (isAbsent(error) && !outlives(before, policy)) {
          if (cached.delete(key)) records.remove(key);
        } else if (before !== undefined) {
          const list = postponed(before, error, asked + policy.tagTtl);
          cached.set(key, list);
          if (list.refused !== before.refused) write(records, key, list); // the refusal must survive a restart
        }
        throw error;
      }
    },
  };
}

function write(records: RecordStore, key: string, { index, recordedAs, refused, imported }: CachedList): void {
  records.put(key, { checkedAt: recordedAs, ...(refused ? { refused } : {}), ...(imported ? { imported } : {}), index });
}

/** The list after a failed request to the upstream, which is not asked again before `quietUntil`. */
function postponed(before: CachedList, error: unknown, quietUntil: number): CachedList {
  return { ...before, quietUntil, refused: before.refused || isOciError(error, 'UNAUTHORIZED', 'DENIED') };
}

function parseListRecord(record: unknown, { now, tagTtl }: { now: number; tagTtl: number }): CachedList | undefined {
  if (typeof record !== 'object' || record === null) return undefined;
  const { checkedAt: written, refused, imported, index } = record as Record<string, unknown>;
  if (typeof index !== 'object' || index === null || typeof written !== 'string') return undefined;
  const age = Date.now() - (Date.parse(written) || 0);
  const checkedAt = now - (age < 0 ? tagTtl : age);
  return {
    index: parseIndex(index),
    size: JSON.stringify(index).length,
    checkedAt,
    recordedAs: written,
    writtenAt: checkedAt,
    quietUntil: -Infinity,
    refused: refused === true,
    imported: imported === true,
  };
}

/** The upstream's document, whose entries were checked when it was read. */
function parseIndex(document: unknown): ReferrerIndex {
  const { manifests, ...rest } = document as { manifests?: unknown };
  const entries = Array.isArray(manifests) ? (manifests as ReferrerIndex['manifests']) : [];
  return { schemaVersion: 2, mediaType: OCI_INDEX, ...rest, manifests: entries } as ReferrerIndex;
}
