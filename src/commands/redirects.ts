import type { Digest } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import { createFlights } from '../registry/flights.ts';
import { createLru } from '../registry/lru.ts';
import { blobKey } from '../store/keys.ts';
import type { S3Store } from '../store/s3.ts';

/** How long S3 has to say that it is there and has the blob, in ms; later the blob is served from here. */
const PATIENCE = 1500;
/** How many URLs are kept. */
const KEPT = 1000;

/** Gives a URL of S3 for a blob; undefined where S3 has none, or does not answer. */
export type Redirect = (digest: Digest, signal: AbortSignal) => Promise<string | undefined>;

/** S3 is asked each time, since nobody may be sent to one that is away; once for all who ask at the same time, as nodes do that pull the same
 *  image. A URL, which takes as long to sign, is used again for half of `ttl`, the ms that it stays good. */
export function createRedirects(remote: S3Store, ttl: number): Redirect {
  const share = createFlights<string | undefined>(PATIENCE);
  const signed = createLru<{ url: string; until: number }>(KEPT);

  async function sign(key: string): Promise<string> {
    const before = signed.get(key);
    if (before !== undefined && Date.now() < before.until) return before.url;
    const until = Date.now() + ttl / 2;
    const url = await remote.presign(key, ttl);
    signed.set(key, { url, until });
    return url;
  }

  return async (digest, signal) => {
    const key = blobKey(digest);
    try {
      return await share(key, signal, async (limit) => ((await remote.stat(key, { signal: limit })) === undefined ? undefined : sign(key)));
    } catch (error) {
      if (signal.aborted || !isOciError(error)) throw error;
      return undefined; // it is served from here, or fetched again; the store has told the log
    }
  };
}
