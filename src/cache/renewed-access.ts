import { LRUCache } from 'lru-cache';
import { raceAbort } from '../async/race-abort.ts';
import { singleFlight } from '../async/single-flight.ts';
import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import type { Repository } from '../oci/reference.ts';
import type { AccessRecords } from './access.ts';
import type { Upstream } from './cache.ts';
import { ANSWER_TIMEOUT_MS, REFUSED_LIFE_MS } from './freshness.ts';

export interface RenewedAccessOptions {
  upstream: Upstream;
  /** The repository as the upstream names it. */
  repositoryOf(this: void, name: Repository): Repository;
  /** How long a record counts while the upstream cannot answer, in ms. */
  staleFor: number;
  /** How long the upstream is not asked again after it could not answer, in ms. */
  quietMs: number;
  /** The clock of `access`. */
  now?: () => number;
}

const QUESTION_TIMEOUT_MS = 25_000;
const MAX_QUIET = 10_000;

/** `access`, for credentials that may be revoked: a record counts for an hour after the upstream
 *  last confirmed it. Then the upstream is asked again. It is forgotten when the upstream refuses,
 *  and counts for up to `staleFor` while the upstream cannot answer (promises 8 and 18). */
export function renewedAccess(access: AccessRecords, options: RenewedAccessOptions): AccessRecords {
  const { staleFor, quietMs, now = () => performance.now() } = options;
  const renewing = singleFlight<void>({ timeoutMs: QUESTION_TIMEOUT_MS });
  /** Until when the upstream is not asked again, by `name@digest`. */
  const quiet = new LRUCache<string, number>({ maxSize: MAX_QUIET, sizeCalculation: () => 1 });

  const ageOf = (provedAt: number | undefined): number => now() - (provedAt ?? -Infinity);
  const isFresh = (name: Repository, digest: Digest): boolean => ageOf(access.provedAt(name, digest)) < REFUSED_LIFE_MS;

  /** Whether the upstream still serves the digest under this name, or cannot say so now. */
  async function renew(name: Repository, descriptor: Descriptor, signal: AbortSignal): Promise<boolean> {
    const { digest } = descriptor;
    const key = `${name}@${digest}`;
    const mayBeStale = (): boolean => ageOf(access.provedAt(name, digest)) <= staleFor;
    if ((quiet.get(key) ?? -Infinity) > now()) return mayBeStale();
    const limit = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]);
    const question = renewing(key, AbortSignal.timeout(QUESTION_TIMEOUT_MS), async (own) =>
      access.grant(name, await ask(options, { ...descriptor, name }, own)),
    ).catch((error: unknown) => {
      if (!isOciError(error) || isOciError(error, 'UNAVAILABLE', 'TOOMANYREQUESTS')) quiet.set(key, now() + quietMs);
      else access.revoke(name, digest);
    });
    try {
      await raceAbort(question, limit);
    } catch {
      signal.throwIfAborted();
    }
    return isFresh(name, digest) || mayBeStale();
  }

  return {
    ...access,
    async find(name, digest, signal) {
      const found = await access.find(name, digest, signal);
      if (found === undefined || isFresh(name, digest)) return found;
      return (await renew(name, found, signal)) ? found : undefined;
    },
    recall(name, digest) {
      return isFresh(name, digest) ? access.recall(name, digest) : undefined;
    },
  };
}

/** @throws OciError as the upstream does */
async function ask(
  { upstream, repositoryOf }: RenewedAccessOptions,
  { name, digest, mediaType }: Descriptor & { name: Repository },
  signal: AbortSignal,
): Promise<Descriptor> {
  const repository = repositoryOf(name);
  const context = { signal };
  const isBlob = mediaType === BLOB_MEDIA_TYPE;
  return isBlob ? upstream.origin.stat(repository, digest, context) : upstream.origin.resolve(repository, digest, context);
}
