import { raceAbort } from '../async/race-abort.ts';
import type { Digest } from '../oci/digest.ts';
import { isAbsent, isOciError } from '../oci/error.ts';
import type { Context, Referrers } from '../oci/registry.ts';
import { referrerListKey } from '../store/keys.ts';
import type { Cache, Target, Upstream } from './cache.ts';
import { ANSWER_TIMEOUT_MS, isSaving, lifeOf, type FreshnessPolicy } from './freshness.ts';
import type { CachedList, ReferrerIndex } from './referrer-memory.ts';
import { createReferrerRecords, outlives } from './referrer-records.ts';

export interface ListedReferrers extends Referrers {
  outcome: 'hit' | 'miss' | 'stale';
}

/** Lists the referrers of a digest. The upstream is asked at most once per tagTtl, for all values
 *  of `artifactType`; when it cannot answer, the cached list is served (promise 21).
 *  @throws OciError as the upstream does, when nothing is cached */
export function createReferrerLists(upstream: Upstream, cache: Cache, policy: FreshnessPolicy) {
  const records = createReferrerRecords(upstream, cache, policy);
  const { cached, asking, now } = cache.referrers;
  const mayServe = ({ checkedAt, refused, imported }: CachedList, { name }: Target): boolean =>
    imported || now() - checkedAt <= lifeOf(policy, name, { refused, outlives: true });

  async function latest(
    target: Target,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<{ list: CachedList; outcome: 'hit' | 'miss' | 'stale' }> {
    const key = referrerListKey(target.name, digest);
    const question = (own: AbortSignal): Promise<CachedList> => asking(key, own, (shared) => records.ask(target, digest, shared));
    const before = await records.find(key, signal);
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
        if (isAbsent(error) && !outlives(before, policy)) throw error;
        reason = error;
      }
    }
    const list = cached.get(key) ?? before;
    if (!mayServe(list, target)) {
      if (isOciError(reason)) throw reason;
      return { list: await question(signal), outcome: 'miss' };
    }
    const entry = { event: 'referrers-stale', repository: target.name, digest, error: reason };
    cache.log.warn(entry, 'upstream cannot list the referrers of an image: serving the cached list');
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
