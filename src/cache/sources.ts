import { discardBody } from '../io/body.ts';
import type { BlobSource } from '../download/source.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import type { Repository } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import { blobKey } from '../store/keys.ts';
import type { Store, StoredContent } from '../store/store.ts';
import type { Cache, Target, Upstream } from './cache.ts';

/** How long the storage may take to begin its answer, in ms, before the next source is tried. */
const STORAGE_TIMEOUT_MS = 2000;

/** The sources of a blob that is not on this machine, in order of preference: the storage, the
 *  replica that owns the digest, the upstream. After a mirror or a replica has sent wrong bytes,
 *  neither mirrors nor replicas are asked for the blob. */
export function sourcesOf(digest: Digest, target: Target, { upstream, cache }: { upstream: Upstream; cache: Cache }): BlobSource[] {
  const { remote } = cache.storage;
  const isDistrusted = cache.distrusted.has(`${target.name}@${digest}`);
  const owner = isDistrusted ? undefined : cache.peers.ownerOf(digest);
  return [
    ...(remote === undefined ? [] : [storageSource(digest, remote, (signal) => recordedSize(digest, target, { cache, signal }))]),
    ...(owner === undefined ? [] : [registrySource('replica', digest, { registry: owner, repository: target.name })]),
    registrySource('upstream', digest, {
      registry: isDistrusted ? upstream.origin : upstream.registry,
      repository: target.repository,
    }),
  ];
}

/** The size in the access record, which was written when the blob's digest had been verified.
 *  Undefined: there is no record, or it cannot be read now. */
async function recordedSize(
  digest: Digest,
  target: Target,
  { cache, signal }: { cache: Cache; signal: AbortSignal },
): Promise<number | undefined> {
  try {
    return (await cache.access.find(target.name, digest, signal))?.size;
  } catch {
    return undefined;
  }
}

/** Opens the blob without asking first whether the storage has it, which saves a round trip. An
 *  object whose size differs from the recorded one is damaged, for example half of an interrupted
 *  upload: the blob then comes from the next source, and the upload queue replaces the object. */
function storageSource(digest: Digest, store: Store, sizeOf: (signal: AbortSignal) => Promise<number | undefined>): BlobSource {
  const checkSize = async (found: number | undefined, recorded: Promise<number | undefined>): Promise<void> => {
    const size = await recorded;
    if (size === undefined || found === undefined || found === size) return;
    throw new OciError('UNAVAILABLE', `the storage has ${found} bytes for ${digest}, which has ${size}`, { origin: 'storage' });
  };
  return {
    name: 'storage',
    async open(range, signal) {
      const recorded = sizeOf(signal);
      const options = { signal, within: STORAGE_TIMEOUT_MS, ...(range === undefined ? {} : { range }) };
      let content: StoredContent | undefined;
      try {
        content = await store.read(blobKey(digest), options);
      } catch (error) {
        if (isOciError(error, 'RANGE_INVALID')) await checkSize(error.size, recorded);
        throw error;
      }
      if (content === undefined) throw new OciError('BLOB_UNKNOWN', `the storage does not have ${digest}`, { origin: 'storage' });
      try {
        await checkSize(content.size, recorded);
      } catch (error) {
        await discardBody(content.body);
        throw error;
      }
      return { digest, size: content.size, range: content.range, body: content.body };
    },
  };
}

function registrySource(
  name: 'replica' | 'upstream',
  digest: Digest,
  { registry, repository }: { registry: Registry; repository: Repository },
): BlobSource {
  return {
    name,
    open: (range, signal) => registry.blob(repository, digest, range === undefined ? { signal } : { signal, range }),
  };
}
