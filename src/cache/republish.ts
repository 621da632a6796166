import { parseManifest, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { blobKey } from '../store/keys.ts';
import { bytesSource, type Store } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import type { Membership } from './access.ts';

interface RestoreOptions {
  local: Store;
  remote: Store | undefined;
  members: Membership;
  arrived(digest: Digest, size: number, from: 'upstream' | 'replica'): void;
  log: Log;
}

/** Puts back into the store what has been pruned there and is served from memory or from the local tier here: else it would be missing from
 *  the store for as long as nobody else asks for it, and what it names would be nobody's. Never fails: a pull does not depend on it. */
export function createRestore(options: RestoreOptions): (repository: Repository, manifest: Descriptor, bytes: Uint8Array) => Promise<void> {
  const { local, remote, members, log } = options;
  return async (repository, manifest, bytes) => {
    const { digest, size } = manifest;
    const signal = AbortSignal.timeout(60_000);
    try {
      if ((await (remote ?? local).stat(blobKey(digest), { signal })) !== undefined) return;
      await local.write(blobKey(digest), bytesSource(bytes), { signal });
      options.arrived(digest, size, 'upstream');
      members.add(repository, manifest);
      if (remote === undefined) return;
      for (const named of parseManifest(bytes, manifest.mediaType).blobs) {
        const found = await local.stat(blobKey(named.digest), { signal });
        if (found === undefined || (await remote.stat(blobKey(named.digest), { signal })) !== undefined) continue;
        options.arrived(named.digest, found.size, 'upstream'); // and no member record: that a manifest names it proves nothing
      }
    } catch (error) {
      log.warn({ error, repository, digest }, 'it is unknown whether the store still has an image');
    }
  };
}
