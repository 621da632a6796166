import type { Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import type { Cache, Target, Upstream } from './cache.ts';

/** A blob that may belong to a repository. */
interface Claim {
  digest: Digest;
  /** In bytes, if known: not every upstream reports it. */
  size: number | undefined;
}

/** Checks whether a repository may serve content that was fetched for another one (promise 12). */
export interface Proofs {
  /** True: the repository's access record says so, or the upstream itself does; mirrors and
   *  untrusted upstreams are never believed. False: the upstream does not answer now, but the blob
   *  may still be available under this name, from a mirror or from an upstream that is slow to
   *  respond.
   *  @throws OciError as the upstream does: BLOB_UNKNOWN, UNAUTHORIZED, DENIED, TOOMANYREQUESTS */
  require(target: Target, claim: Claim, signal: AbortSignal): Promise<boolean>;
}

export function createProofs(upstream: Upstream, cache: Cache, { untrusted }: { untrusted: boolean }): Proofs {
  const { access } = cache;

  /** @throws OciError as `stat` does; UNAVAILABLE: the upstream reports another size */
  async function askOrigin(target: Target, { digest, size }: Claim, signal: AbortSignal): Promise<Descriptor> {
    const descriptor = await upstream.origin.stat(target.repository, digest, { signal });
    if (size === undefined || size === descriptor.size) return descriptor;
    throw new OciError('UNAVAILABLE', `upstream reports ${descriptor.size} bytes for ${digest}, which has ${size}`, { origin: 'upstream' });
  }

  return {
    async require(target, claim, signal) {
      const { digest } = claim;
      if ((await access.find(target.name, digest, signal)) !== undefined) return true;
      if (untrusted) return false; // it has to send the bytes itself
      try {
        const key = `${target.name}@${digest} at its origin`;
        access.grant(target.name, await cache.describing(key, signal, (signal) => askOrigin(target, claim, signal)));
        return true;
      } catch (error) {
        signal.throwIfAborted();
        if (isOciError(error, 'UNAVAILABLE')) return false;
        throw error;
      }
    },
  };
}
