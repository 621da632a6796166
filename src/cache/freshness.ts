import type { Repository } from '../oci/reference.ts';
import type { RateLimit } from '../upstream/rate-limit.ts';

/** For how long answers of an upstream are used: tags, and lists of referrers. */
export interface FreshnessPolicy {
  /** Milliseconds, all three. */
  tagTtl: number;
  staleFor: number;
  negativeTtl: number;
  /** How a cached tag is answered after the upstream has deleted it. forget: it is deleted here
   *  too. serve: it is served as before, for as long as its image is kept. */
  onDeleted: 'forget' | 'serve';
  /** Whether credentials are configured for a repository: the upstream's 401 or 403 may then mean
   *  that access has been revoked. */
  credentialed(repository: Repository): boolean;
  /** The upstream's rate limit. */
  rateLimit: Pick<RateLimit, 'blockedUntil' | 'countsPulls'>;
}

/** How long a request for a cached answer waits for the upstream's, in ms. */
export const ANSWER_TIMEOUT_MS = 2000;
/** How long a cached answer is served after the upstream has refused its credentials, counted from
 *  its last confirmation, in ms. */
export const REFUSED_LIFE_MS = 3_600_000;
/** The record of an unchanged answer is written again after this long, in ms: records expire after
 *  days, and writes cost money. */
export const REWRITE_AFTER_MS = 3_600_000;

/** How long after its last confirmation a cached answer may be served, in ms.
 *  @param answer.refused the upstream has answered 401 or 403 since
 *  @param answer.outlives the answer is kept although the upstream has deleted the tag */
export function lifeOf(policy: FreshnessPolicy, repository: Repository, answer: { refused: boolean; outlives: boolean }): number {
  if (answer.refused && policy.credentialed(repository)) return Math.min(REFUSED_LIFE_MS, policy.staleFor);
  return answer.outlives && policy.onDeleted === 'serve' ? Infinity : policy.staleFor;
}

/** Whether the upstream's rate limit forbids requests that a cached answer makes unnecessary. */
export function isSaving({ rateLimit }: FreshnessPolicy): boolean {
  return Date.now() < rateLimit.blockedUntil();
}
