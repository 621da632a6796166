import { LRUCache } from 'lru-cache';
import { BLOB_MEDIA_TYPE } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import type { AccessRecords } from './access.ts';

/** The sizes of public blobs, in bytes: an upstream has served them under a name for which there
 *  are no credentials, so every client can read them under that name. */
export type PublicBlobs = LRUCache<Digest, number>;

/** Entries, each about a hundred bytes. */
const IN_MEMORY = 50_000;

export function createPublicBlobs(): PublicBlobs {
  return new LRUCache({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
}

/** Extends `access`: a manifest also proves that its repository may serve the public blobs that it
 *  names, which reveals nothing that clients cannot read anyway. An image whose layers were fetched
 *  for another repository can then be pulled even if its own upstream does not answer, or answers
 *  requests for blobs wrongly. The records are written as soon as the manifest is seen: the node
 *  that pulls it may have the layers already, and the next node may need them when the upstream
 *  does not answer.
 *  @param isPublic - whether there are no credentials for a repository */
export function sharingPublicBlobs(
  access: AccessRecords,
  blobs: PublicBlobs,
  isPublic: (repository: Repository) => boolean,
): AccessRecords {
  function notePublic(repository: Repository, { digest, size, mediaType }: { digest: Digest; size: number; mediaType: string }): void {
    if (mediaType === BLOB_MEDIA_TYPE && !blobs.has(digest) && isPublic(repository)) blobs.set(digest, size);
  }

  return {
    ...access,
    async find(repository, digest, signal) {
      const found = await access.find(repository, digest, signal);
      if (found !== undefined) {
        notePublic(repository, found);
        return found;
      }
      const size = access.statedSize(repository, digest);
      if (size === undefined || blobs.get(digest) !== size) return undefined;
      const descriptor = { digest, mediaType: BLOB_MEDIA_TYPE, size };
      access.grant(repository, descriptor);
      return descriptor;
    },
    grant(repository, descriptor) {
      access.grant(repository, descriptor);
      notePublic(repository, descriptor);
    },
    async noteManifest(repository, manifest, bytes) {
      const named = await access.noteManifest(repository, manifest, bytes);
      for (const { digest, size } of named) {
        if (blobs.get(digest) === size) access.grant(repository, { digest, mediaType: BLOB_MEDIA_TYPE, size });
      }
      return named;
    },
  };
}
