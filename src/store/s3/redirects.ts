import { LRUCache } from 'lru-cache';
import { raceAbort } from '../../async/race-abort.ts';
import { singleFlight } from '../../async/single-flight.ts';
import type { Digest } from '../../oci/digest.ts';
import { isOciError } from '../../oci/error.ts';
import { blobKey } from '../keys.ts';
import type { S3Store, SignedUrls } from './options.ts';

/** How long S3 may take to confirm that it has a blob; after that the registry serves the blob
 *  itself. */
const CONFIRM_TIMEOUT_MS = 1500;
/** How long a confirmed blob is assumed to be in S3: a blob that may be pruned has not been pulled
 *  for a day. */
const CONFIRMED_MS = 5000;
/** How many blobs are remembered. */
const MAX_KNOWN = 1000;

export interface Redirection {
  /** A presigned URL of S3: every client that has it can read the blob. */
  url: string;
  /** Size in bytes of the object in S3. If it differs from the blob's size, the object is damaged,
   *  and no client may be redirected to it. */
  size: number;
}

/** The redirect to a blob in S3; undefined: S3 does not have it, or does not answer. */
export type Redirect = (digest: Digest, signal: AbortSignal) => Promise<Redirection | undefined>;

interface Known {
  urls: SignedUrls;
  /** On the clock of `performance.now()`, as is `confirmedUntil`. */
  goodUntil: number;
  confirmedUntil: number;
  size: number;
}

/** Redirects to S3. Before each redirect a HEAD shows that S3 is reachable: a client that is sent
 *  to an S3 that is down would fail. Concurrent requests share one HEAD: those for the same blob,
 *  as of nodes that pull one image, and those for any blob that S3 has confirmed within the last
 *  five seconds, for which the HEAD only proves that S3 is up.
 *
 *  Signing takes longer than the HEAD: a signed URL is reused for half of its lifetime, which is
 *  `ttl` ms or ends with the credentials. */
export function createRedirects(remote: S3Store, ttl: number): Redirect {
  const share = singleFlight<string | undefined>({ timeoutMs: 2 * CONFIRM_TIMEOUT_MS }); // `confirm` gives up before
  const known = new LRUCache<string, Known>({ maxSize: MAX_KNOWN, sizeCalculation: () => 1 });

  /** @throws the signal's reason: the credentials may come from a silent service */
  async function sign(key: string, signal: AbortSignal): Promise<Known> {
    const before = known.get(key);
    if (before !== undefined && performance.now() < before.goodUntil) return before;
    const now = performance.now();
    const urls = await raceAbort(remote.presign(key, ttl), signal);
    const signed = { urls, goodUntil: now + (urls.until - Date.now()) / 2, confirmedUntil: 0, size: before?.size ?? -1 };
    known.set(key, signed);
    return signed;
  }

  /** Returns the key if S3 has no such object. @throws OciError UNAVAILABLE; TimeoutError, by
   *  which the store learns as well that S3 does not answer */
  async function confirm(key: string): Promise<string | undefined> {
    const signal = AbortSignal.timeout(CONFIRM_TIMEOUT_MS);
    const signed = await sign(key, signal);
    const found = await remote.stat(key, { signal, by: signed.urls.head });
    signed.confirmedUntil = found === undefined ? 0 : performance.now() + CONFIRMED_MS;
    signed.size = found?.size ?? -1;
    return found === undefined ? key : undefined;
  }

  return async (digest, signal) => {
    const key = blobKey(digest);
    const isConfirmed = performance.now() < (known.get(key)?.confirmedUntil ?? 0);
    try {
      const absent = await share(isConfirmed ? 'any that is confirmed' : key, signal, () => confirm(key));
      if (absent === key) return undefined;
      const { urls, size } = await sign(key, AbortSignal.any([signal, AbortSignal.timeout(CONFIRM_TIMEOUT_MS)]));
      return { url: urls.get, size };
    } catch (error) {
      const isRefused = isOciError(error) && error.retryAfter === undefined;
      if (isRefused) known.delete(key); // the credentials that it was signed by may have been replaced
      const isLate = (error as Error).name === 'TimeoutError';
      if (signal.aborted || !(isLate || isOciError(error))) throw error;
      return undefined; // the registry serves the blob itself; the store has logged the failure
    }
  };
}
