import { parseManifest, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { blobKey } from '../store/keys.ts';
import { bytesSource, type Store } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import type { AccessRecords } from './access.ts';

interface RepublishOptions {
  local: Store;
  remote: Store | undefined;
  access: Pick<AccessRecords, 'restore'>;
  /** Call it for a blob in `local` that `remote` should store too. */
  arrived(this: void, digest: Digest, size: number, from: 'upstream' | 'replica'): void;
  log: Log;
}

const TIMEOUT_MS = 60_000;

/** Stores a manifest again, and those of its blobs that are on this machine, if pruning has removed
 *  them while they are still served from memory or the local tier. Otherwise the store would lack
 *  them until the next download, and pruning would consider the blobs of the manifest unused. Never
 *  fails: no pull depends on it. */
export function createRepublish(
  options: RepublishOptions,
): (repository: Repository, manifest: Descriptor, bytes: Uint8Array) => Promise<void> {
  const { local, remote, access, log } = options;
  return async (repository, manifest, bytes) => {
    const { digest, size } = manifest;
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    try {
      if ((await (remote ?? local).stat(blobKey(digest), { signal })) !== undefined) return;
      await local.write(blobKey(digest), bytesSource(bytes), { signal });
      options.arrived(digest, size, 'upstream');
      access.restore(repository, manifest);
      if (remote === undefined) return;
      for (const named of parseManifest(bytes, manifest.mediaType).blobs) {
        const found = await local.stat(blobKey(named.digest), { signal });
        if (found === undefined || (await remote.stat(blobKey(named.digest), { signal })) !== undefined) continue;
        options.arrived(named.digest, found.size, 'upstream');
      }
    } catch (error) {
      log.warn({ event: 'republish-failed', repository, digest, error }, 'could not check whether the store still has the image');
    }
  };
}
