import type { Digest } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import { createLru } from '../registry/lru.ts';
import { blobKey } from '../store/keys.ts';
import type { S3Store } from '../store/s3.ts';

/** How long one URL is given to all who ask, in ms: nodes that pull the same image do so at the same time. */
const SHARED = 5000;
const REMEMBERED = 1000;

export interface Redirects {
  /** A URL of S3 that gives a blob; undefined where it has none, or does not answer. */
  to(this: void, digest: Digest, signal: AbortSignal): Promise<string | undefined>;
  /** S3 has failed: nobody is sent there before it has been asked again. */
  forget(this: void): void;
}

/** `ttl`: how long a URL stays good, in ms. To ask S3 and to sign take some 1.5 ms of CPU time, and 3 to 10 ms in all. */
export function createRedirects(remote: S3Store, ttl: number): Redirects {
  let known = createLru<{ url: string; until: number }>(REMEMBERED);
  return {
    async to(digest, signal) {
      const shared = known.get(digest);
      if (shared !== undefined && Date.now() < shared.until) return shared.url;
      const key = blobKey(digest);
      try {
        const stored = await remote.stat(key, { signal: AbortSignal.any([signal, AbortSignal.timeout(1500)]) });
        if (stored === undefined) return undefined;
        const url = await remote.presign(key, ttl);
        known.set(digest, { url, until: Date.now() + Math.min(SHARED, ttl / 10) });
        return url;
      } catch (error) {
        if (signal.aborted || !isOciError(error)) throw error;
        return undefined; // it is served from here, or fetched again; the store has told the log
      }
    },
    forget: () => void (known = createLru(REMEMBERED)),
  };
}
