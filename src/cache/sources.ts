import type { BlobSource } from '../download/source.ts';
import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { Repository } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import { blobKey } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import type { Cache, Target, Upstream } from './cache.ts';

/** How long the storage has to begin its answer, in ms, before a blob comes from the next source. */
const STORAGE_TIMEOUT_MS = 2000;

/** Where a blob that is not on this machine may come from, in order of preference: the storage, the replica that fetches it for all,
 *  the upstream. Once its bytes were wrong, neither mirrors nor replicas are asked any more. */
export function sourcesOf(digest: Digest, target: Target, { upstream, cache }: { upstream: Upstream; cache: Cache }): BlobSource[] {
  const { remote } = cache.storage;
  const isDistrusted = cache.distrusted.has(`${target.name}@${digest}`);
  const owner = isDistrusted ? undefined : cache.peers.ownerOf(digest);
  return [
    ...(remote === undefined ? [] : [storageSource(digest, remote)]),
    ...(owner === undefined ? [] : [registrySource('replica', digest, { registry: owner, repository: target.name })]),
    registrySource('upstream', digest, {
      registry: isDistrusted ? upstream.origin : upstream.registry,
      repository: target.repository,
    }),
  ];
}

/** The storage is not asked first whether it has the blob: opening it is the answer, one round trip sooner. */
function storageSource(digest: Digest, store: Store): BlobSource {
  return {
    name: 'storage',
    async open(range, signal) {
      const options = { signal, within: STORAGE_TIMEOUT_MS, ...(range === undefined ? {} : { range }) };
      const content = await store.read(blobKey(digest), options);
      if (content === undefined) throw new OciError('BLOB_UNKNOWN', `the storage does not have ${digest}`, { origin: 'storage' });
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
