import { LRUCache } from 'lru-cache';
import type { Digest } from '../../oci/digest.ts';
import { isOciError } from '../../oci/error.ts';
import { singleFlight } from '../../async/single-flight.ts';
import { raceAbort } from '../../async/race-abort.ts';
import { blobKey } from '../keys.ts';
import type { S3Store, SignedUrls } from './options.ts';

/** How long S3 has to say that it is there and has the blob, in ms; later the blob is served from here. */
const PATIENCE = 1500;
/** How long S3 is taken to have what it has just shown, in ms: what may be pruned has not been pulled for a day. */
const SEEN = 5000;
/** How many blobs are remembered. */
const KEPT = 1000;

/** Gives a URL of S3 for a blob; undefined where S3 has none, or does not answer. */
export type Redirect = (digest: Digest, signal: AbortSignal) => Promise<string | undefined>;

/** Nobody may be sent to an S3 that is away: it is asked for each client, and the client waits for the answer. But one question does for all who wait
 *  at the same time, for the same blob as nodes do that pull one image, or for any that it has shown a moment ago: its answer says that it is there.
 *  The question may be older than who joins it; it is when the answer comes that counts.
 *
 *  What was signed, which takes longer than asking, is used again for half of the time that it stays good, `ttl` ms or as long as the credentials do. */
export function createRedirects(remote: S3Store, ttl: number): Redirect {
  const share = singleFlight<string | undefined>({ timeoutMs: 2 * PATIENCE }); // `ask` gives up before
  const known = new LRUCache<string, Known>({ maxSize: KEPT, sizeCalculation: () => 1 });

  /** @throws the signal's reason: credentials may be on their way from a service that is silent */
  async function sign(key: string, signal: AbortSignal): Promise<Known> {
    const before = known.get(key);
    if (before !== undefined && Date.now() < before.goodUntil) return before;
    const now = Date.now();
    const urls = await raceAbort(remote.presign(key, ttl), signal);
    const signed = { urls, goodUntil: now + (urls.until - now) / 2, seenUntil: 0 };
    known.set(key, signed);
    return signed;
  }

  /** Gives the key if S3 has nothing there. @throws OciError UNAVAILABLE; TimeoutError, which tells the store too that S3 is silent */
  async function ask(key: string): Promise<string | undefined> {
    const signal = AbortSignal.timeout(PATIENCE);
    const signed = await sign(key, signal);
    const found = await remote.stat(key, { signal, by: signed.urls.head });
    signed.seenUntil = found === undefined ? 0 : Date.now() + SEEN;
    return found === undefined ? key : undefined;
  }

  return async (digest, signal) => {
    const key = blobKey(digest);
    const seen = Date.now() < (known.get(key)?.seenUntil ?? 0);
    try {
      const absent = await share(seen ? 'any that was seen' : key, signal, () => ask(key));
      if (absent === key) return undefined;
      return (await sign(key, AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]))).urls.get;
    } catch (error) {
      const refused = isOciError(error) && error.retryAfter === undefined;
      if (refused) known.delete(key); // the credentials that it was signed by may have been replaced
      const late = (error as Error).name === 'TimeoutError';
      if (signal.aborted || !(late || isOciError(error))) throw error;
      return undefined; // it is served from here, or fetched again; the store has told the log
    }
  };
}

interface Known {
  urls: SignedUrls;
  /** Milliseconds since the epoch, as is the next. */
  goodUntil: number;
  seenUntil: number;
}
