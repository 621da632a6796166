import { discardBody } from '../io/body.ts';
import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import { hasMirrors, type Cache, type Target, type Upstream } from './cache.ts';

/** A blob that may belong to a repository. */
interface Claim {
  digest: Digest;
  /** Bytes, where they are known here: not every upstream tells. */
  size: number | undefined;
}

/** Whether a repository may be served what others have brought here (promise 12). */
export interface Proofs {
  /** True: its record says so, or the upstream that owns the name does; mirrors are never believed. False: that upstream cannot be
   *  asked now, but a mirror may have the blob.
   *  @throws OciError as the upstream does: BLOB_UNKNOWN, UNAUTHORIZED, DENIED, TOOMANYREQUESTS, UNAVAILABLE */
  require(target: Target, claim: Claim, signal: AbortSignal): Promise<boolean>;
}

/** After this long, in ms, a failed question is an outage: there is no time for another one. */
const QUICK_FAILURE_MS = 2000;

export function createProofs(upstream: Upstream, cache: Cache): Proofs {
  const { access } = cache;

  /** By HEAD, or, where that does not tell the size, by GET of one byte. */
  async function askOrigin(target: Target, { digest, size: known }: Claim, signal: AbortSignal): Promise<Descriptor> {
    const started = performance.now();
    try {
      return await upstream.origin.stat(target.repository, digest, { signal });
    } catch (error) {
      const isQuick = performance.now() - started < QUICK_FAILURE_MS;
      if (signal.aborted || known === undefined || !isQuick || !isOciError(error, 'UNAVAILABLE')) throw error;
      const { body, size = known } = await upstream.origin.blob(target.repository, digest, { signal, range: { start: 0, end: 0 } });
      await discardBody(body);
      return { digest, mediaType: BLOB_MEDIA_TYPE, size };
    }
  }

  return {
    async require(target, claim, signal) {
      const { digest } = claim;
      if ((await access.find(target.name, digest, signal)) !== undefined) return true;
      // The upstream has served a manifest under this name that names the blob. Where there are mirrors, one of them may have.
      const named = hasMirrors(upstream) ? undefined : access.findNamed(target.name, digest);
      if (named !== undefined) {
        access.grant(target.name, named);
        return true;
      }
      try {
        const key = `${target.name}@${digest} at its origin`;
        access.grant(target.name, await cache.describing(key, signal, (signal) => askOrigin(target, claim, signal)));
        return true;
      } catch (error) {
        signal.throwIfAborted();
        if (hasMirrors(upstream) && isOciError(error, 'UNAVAILABLE')) return false;
        throw error;
      }
    },
  };
}
