import { raceAbort } from '../async/race-abort.ts';
import { MAX_MANIFEST_SIZE, OCI_INDEX } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isAbsent, isOciError } from '../oci/error.ts';
import type { Context, Referrers } from '../oci/registry.ts';
import { referrerListKey } from '../store/keys.ts';
import type { Cache, Target, Upstream } from './cache.ts';
import { ANSWER_TIMEOUT_MS, isSaving, lifeOf, REWRITE_AFTER_MS, type FreshnessPolicy } from './freshness.ts';
import { LISTED, type CachedList, type ReferrerIndex } from './referrer-memory.ts';

export interface ListedReferrers extends Referrers {
  outcome: 'hit' | 'miss' | 'stale';
}

/** Lists the referrers of a digest. The upstream is asked at most once per tagTtl, for all values
 *  of `artifactType`; when it cannot answer, the cached list is served (promise 21).
 *  @throws OciError as the upstream does, when nothing is cached */
export function createReferrerLists(upstream: Upstream, cache: Cache, policy: FreshnessPolicy) {
  const { records, access, log } = cache;
  const { cached, asking, listed, now } = cache.referrers;

  async function find(key: string, signal: AbortSignal): Promise<CachedList | undefined> {
    const remembered = cached.get(key);
    if (remembered !== undefined) return remembered;
    const found = parseListRecord(await records.read(key, signal, 2 * MAX_MANIFEST_SIZE), { now: now(), tagTtl: policy.tagTtl });
    const meanwhile = cached.get(key);
    if (found === undefined || meanwhile !== undefined) return meanwhile;
    cached.set(key, found);
    return found;
  }

  function write(key: string, { index, recordedAs, refused }: CachedList): void {
    records.put(key, { checkedAt: recordedAs, ...(refused ? { refused } : {}), index });
  }

  async function ask({ repository, name }: Target, digest: Digest, signal: AbortSignal): Promise<CachedList> {
    const key = referrerListKey(name, digest);
    const asked = now();
    const recordedAs = new Date().toISOString();
    const before = cached.get(key);
    try {
      const { index: bytes } = await upstream.registry.referrers(repository, digest, { signal });
      const answer = parseIndex(JSON.parse(Buffer.from(bytes).toString()));
      // An upstream that has deleted an image lists nothing for it.
      const isDeleted = policy.onDeleted === 'serve' && answer.manifests.length === 0 && before !== undefined;
      const index = isDeleted ? before.index : answer;
      const list = { index, size: bytes.length, checkedAt: asked, recordedAs, writtenAt: -Infinity, quietUntil: -Infinity, refused: false };
      return await keep({ key, name, digest }, list, { before, signal });
    } catch (error) {
      if (isAbsent(error) && policy.onDeleted === 'forget') {
        if (cached.delete(key)) records.remove(key);
      } else if (before !== undefined) postpone(key, before, { asked, error });
      throw error;
    }
  }

  /** Whether an empty list is worth a record: only for a known digest, so that requests for random
   *  digests leave nothing in the store. */
  async function isKnown(name: Target['name'], digest: Digest, signal: AbortSignal): Promise<boolean> {
    return listed.has(`${name}@${digest}`) || (await access.find(name, digest, signal)) !== undefined;
  }

  async function keep(
    { key, name, digest }: { key: string; name: Target['name']; digest: Digest },
    list: CachedList,
    { before, signal }: { before: CachedList | undefined; signal: AbortSignal },
  ): Promise<CachedList> {
    const isSame = before !== undefined && !before.refused && JSON.stringify(before.index) === JSON.stringify(list.index);
    const isWritten = isSame && list.checkedAt - before.writtenAt < REWRITE_AFTER_MS;
    const isOurs = list.index.manifests.length > 0 || (await isKnown(name, digest, signal));
    for (const entry of list.index.manifests.slice(0, LISTED)) listed.set(`${name}@${entry.digest}`, true);
    const kept = { ...list, writtenAt: isWritten ? before.writtenAt : isOurs ? list.checkedAt : -Infinity };
    cached.set(key, kept);
    if (!isWritten && isOurs) write(key, kept);
    return kept;
  }

  function postpone(key: string, before: CachedList, { asked, error }: { asked: number; error: unknown }): void {
    const refused = before.refused || isOciError(error, 'UNAUTHORIZED', 'DENIED');
    const list = { ...before, quietUntil: asked + policy.tagTtl, refused };
    cached.set(key, list);
    if (refused !== before.refused) write(key, list); // the refusal must survive a restart
  }

  function mayServe({ checkedAt, refused }: CachedList, { name }: Target): boolean {
    return now() - checkedAt <= lifeOf(policy, name, { refused, outlives: true });
  }

  async function latest(
    target: Target,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<{ list: CachedList; outcome: 'hit' | 'miss' | 'stale' }> {
    const key = referrerListKey(target.name, digest);
    const question = (own: AbortSignal): Promise<CachedList> => asking(key, own, (shared) => ask(target, digest, shared));
    const before = await find(key, signal);
    if (before === undefined) return { list: await question(signal), outcome: 'miss' };
    if (now() - before.checkedAt < policy.tagTtl) return { list: before, outcome: 'hit' };
    const isSpared = isSaving(policy) && mayServe(before, target);
    let reason: unknown = isSpared ? "the upstream's rate limit is nearly used up" : 'upstream did not answer a moment ago';
    if (now() >= before.quietUntil && !isSpared) {
      try {
        const limit = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]);
        return { list: await raceAbort(question(limit), limit), outcome: 'miss' };
      } catch (error) {
        signal.throwIfAborted();
        if (isAbsent(error) && policy.onDeleted === 'forget') throw error;
        reason = error;
      }
    }
    const list = cached.get(key) ?? before;
    if (!mayServe(list, target)) {
      if (isOciError(reason)) throw reason;
      return { list: await question(signal), outcome: 'miss' };
    }
    const entry = { event: 'referrers-stale', repository: target.name, digest, error: reason };
    log.warn(entry, 'upstream cannot list the referrers of an image: serving the cached list');
    return { list, outcome: 'stale' };
  }

  return async function list(target: Target, digest: Digest, context: Context & { artifactType?: string }): Promise<ListedReferrers> {
    const { list, outcome } = await latest(target, digest, context.signal);
    return { ...filtered(list.index, context.artifactType), outcome };
  };
}

function filtered(index: ReferrerIndex, artifactType: string | undefined): Referrers {
  const filtersApplied = artifactType !== undefined;
  const manifests = filtersApplied ? index.manifests.filter((entry) => entry.artifactType === artifactType) : index.manifests;
  return { index: Buffer.from(JSON.stringify({ ...index, manifests })), filtersApplied };
}

function parseListRecord(record: unknown, { now, tagTtl }: { now: number; tagTtl: number }): CachedList | undefined {
  if (typeof record !== 'object' || record === null) return undefined;
  const { checkedAt: written, refused, index } = record as Record<string, unknown>;
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
  };
}

/** The upstream's document, whose entries were checked when it was read. */
function parseIndex(document: unknown): ReferrerIndex {
  const { manifests, ...rest } = document as { manifests?: unknown };
  const entries = Array.isArray(manifests) ? (manifests as ReferrerIndex['manifests']) : [];
  return { schemaVersion: 2, mediaType: OCI_INDEX, ...rest, manifests: entries } as ReferrerIndex;
}
