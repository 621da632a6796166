import type { Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import { tagKey } from '../store/keys.ts';
import type { CachedTag } from './cached-tag.ts';
import { isSaving, lifeOf, type FreshnessPolicy } from './freshness.ts';
import { isUnreachable, noteReachability, type TagAnswer } from './tag-memory.ts';
import { askOnce, revalidate, type Question } from './tag-questions.ts';
import { findLatestTag, findTag, type TagCache } from './tag-records.ts';

export interface Tags {
  /** The digest of a tag that is in memory and was confirmed within tagTtl. */
  fresh(repository: Repository, tag: Tag): Digest | undefined;
  /** Resolves a tag. A cached tag is answered within ANSWER_TIMEOUT_MS, or, if it has moved, once
   *  its new manifest has been fetched.
   *  @throws OciError as `question` does, if no cached digest may be served */
  resolve(repository: Repository, tag: Tag, question: Question, signal: AbortSignal): Promise<ResolvedTag>;
}

export interface ResolvedTag extends TagAnswer {
  /** The upstream could not confirm the tag. */
  stale: boolean;
}

/** Resolves tags. The upstream is asked for each tag at most once per tagTtl; when it cannot
 *  answer, the cached tag is served (promise 8). */
export function createTags(cache: TagCache): Tags {
  const { memory, policy } = cache;
  const { cached, absent, now } = memory;
  return {
    fresh(repository, tag) {
      const found = cached.get(tagKey(repository, tag));
      return found !== undefined && found.goneSince === undefined && now() - found.checkedAt < policy.tagTtl ? found.digest : undefined;
    },
    async resolve(repository, tag, question, signal) {
      const key = tagKey(repository, tag);
      const unknown = absent.get(key);
      if (unknown !== undefined && unknown.until > now()) throw unknown.error;
      const before = await findTag(cache, key, signal);
      signal.throwIfAborted(); // the caller has left: it needs no answer
      if (before === undefined) {
        const { done, callers } = askOnce(cache, key, question);
        return { ...(await callers.wait(done, signal)), stale: false };
      }
      if (now() - before.checkedAt < policy.tagTtl) return { digest: before.digest, stale: before.goneSince !== undefined };
      const outcome = await askAgain(cache, { repository, key, before }, question, signal);
      if ('digest' in outcome) return outcome;
      return serveStale(cache, { repository, tag, latest: (await findLatestTag(cache, key, signal)) ?? before }, outcome.reason);
    },
  };
}

/** Asks the upstream about a cached tag whose tagTtl is over, unless it is better left alone.
 *  @returns why there is no answer, if there is none
 *  @throws OciError MANIFEST_UNKNOWN, NAME_UNKNOWN: the upstream has deleted the tag */
async function askAgain(
  cache: TagCache,
  { repository, key, before }: { repository: Repository; key: string; before: CachedTag },
  question: Question,
  signal: AbortSignal,
): Promise<ResolvedTag | { reason: unknown }> {
  const { memory, policy } = cache;
  const ageMs = memory.now() - before.checkedAt;
  if (isSaving(policy) && ageMs <= lifeOfTag(before, policy, repository)) return { reason: "the upstream's rate limit is nearly used up" };
  const silent = { reason: 'upstream did not answer a moment ago' };
  if (memory.now() < before.quietUntil) return silent;
  if (before.imported && isUnreachable(memory, key)) {
    // Ask in the background, to notice when the upstream is back; the pull does not wait for it.
    askOnce(cache, key, question).done.catch(() => undefined);
    return silent;
  }
  try {
    const { gone, ...answer } = await revalidate(cache, key, question, signal);
    return { ...answer, stale: gone === true };
  } catch (error) {
    signal.throwIfAborted();
    if (isAbsent(error)) throw error;
    noteReachability(memory, key, error);
    return { reason: error };
  }
}

/** @throws OciError `reason`, or UNAVAILABLE: the cached tag is too old to be served */
function serveStale(
  { memory, policy, log }: TagCache,
  { repository, tag, latest }: { repository: Repository; tag: Tag; latest: CachedTag },
  reason: unknown,
): ResolvedTag {
  const ageMs = memory.now() - latest.checkedAt;
  if (ageMs > lifeOfTag(latest, policy, repository)) {
    if (isOciError(reason)) throw reason;
    throw new OciError('UNAVAILABLE', `upstream does not answer, and the cached ${repository}:${tag} is too old to be served`);
  }
  const entry = { event: 'tag-stale', repository, tag, error: reason, ageSeconds: Math.round(ageMs / 1000) };
  if (latest.imported) log.debug(entry, 'upstream cannot confirm an imported tag: serving it');
  else log.warn(entry, 'upstream cannot confirm a tag: serving the cached one');
  return { digest: latest.digest, stale: true };
}

/** How long after its last confirmation a tag may be served, in ms. */
function lifeOfTag({ imported, refused, goneSince }: CachedTag, policy: FreshnessPolicy, repository: Repository): number {
  return imported ? Infinity : lifeOf(policy, repository, { refused, outlives: goneSince !== undefined });
}
