import { parseManifest, type Descriptor } from '../oci/descriptor.ts';
import type { Repository } from '../oci/reference.ts';
import { blobKey } from '../store/keys.ts';
import { bytesSource } from '../store/store.ts';
import type { Cache } from './cached.ts';

/** Puts back into the store what has been pruned there and is served from memory or from the local tier here: else it would be missing from
 *  the store for as long as nobody else asks for it, and what it names would be nobody's. Never fails: a pull does not depend on it. */
export function createRestore(
  cache: Pick<Cache, 'local' | 'remote' | 'arrived' | 'members' | 'log'>,
): (repository: Repository, manifest: Descriptor, bytes: Uint8Array) => Promise<void> {
  const { local, remote, members, log } = cache;
  return async (repository, manifest, bytes) => {
    const { digest, size } = manifest;
    const signal = AbortSignal.timeout(60_000);
    try {
      if ((await (remote ?? local).stat(blobKey(digest), { signal })) !== undefined) return;
      await local.write(blobKey(digest), bytesSource(bytes), { signal });
      cache.arrived(digest, size, 'upstream');
      members.add(repository, manifest);
      if (remote === undefined) return;
      for (const named of parseManifest(bytes, manifest.mediaType).blobs) {
        const found = await local.stat(blobKey(named.digest), { signal });
        if (found === undefined || (await remote.stat(blobKey(named.digest), { signal })) !== undefined) continue;
        cache.arrived(named.digest, found.size, 'upstream'); // and no member record: that a manifest names it proves nothing
      }
    } catch (error) {
      log.warn({ error, repository, digest }, 'it is unknown whether the store still has an image');
    }
  };
}
