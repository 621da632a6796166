import type { Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import { blobKey } from '../store/keys.ts';
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
  /** Proves access to the blobs that are stored and have no access record. @throws as `require` */
  requireStored(target: Target, blobs: readonly Descriptor[], signal: AbortSignal): Promise<void>;
}

/** How long one blob of `requireStored` may take: its record, the store, and the upstream. */
const STORED_TIMEOUT_MS = 60_000;

export function createProofs(upstream: Upstream, cache: Cache, { untrusted }: { untrusted: boolean }): Proofs {
  const { access, storage } = cache;

  /** @throws OciError as `stat` does; UNAVAILABLE: the upstream reports another size */
  async function askOrigin(target: Target, { digest, size }: Claim, signal: AbortSignal): Promise<Descriptor> {
    const descriptor = await upstream.origin.stat(target.repository, digest, { signal });
    if (size === undefined || size === descriptor.size) return descriptor;
    throw new OciError('UNAVAILABLE', `upstream reports ${descriptor.size} bytes for ${digest}, which has ${size}`, { origin: 'upstream' });
  }

  /** Asks the upstream, as `require` does where there is no record. */
  async function prove(target: Target, claim: Claim, signal: AbortSignal): Promise<boolean> {
    if (untrusted) return false; // it has to send the bytes itself
    try {
      const key = `${target.name}@${claim.digest} at its origin`;
      access.grant(target.name, await cache.describing(key, signal, (signal) => askOrigin(target, claim, signal)));
      return true;
    } catch (error) {
      signal.throwIfAborted();
      if (isOciError(error, 'UNAVAILABLE')) return false;
      throw error;
    }
  }

  return {
    async require(target, claim, signal) {
      return (await access.find(target.name, claim.digest, signal)) !== undefined || prove(target, claim, signal);
    },
    async requireStored(target, blobs, closing) {
      if (untrusted) return;
      for (const { digest } of blobs) {
        const signal = AbortSignal.any([closing, AbortSignal.timeout(STORED_TIMEOUT_MS)]);
        if ((await access.find(target.name, digest, signal)) !== undefined) continue;
        const stored = await (storage.remote ?? storage.local).stat(blobKey(digest), { signal });
        if (stored !== undefined) await prove(target, { digest, size: stored.size }, signal);
      }
    },
  };
}
