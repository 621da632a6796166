import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import { OciError } from '../oci/error.ts';
import type { PushRegistry } from '../oci/push-registry.ts';
import type { Repository } from '../oci/reference.ts';
import { blobKey, ownerKey, ownersPrefix, parseOwnerKey } from '../store/keys.ts';
import { bytesSource } from '../store/store.ts';
import type { Contents } from './contents.ts';
import { createUploads } from './uploads.ts';

export interface BlobWriterOptions {
  /** Bytes. */
  maxBlobSize: number;
  /** Called before `size` more bytes are stored for a repository. @throws OciError DENIED: its quota does not allow them */
  checkQuota(this: void, repository: Repository, size: number, signal: AbortSignal): Promise<void>;
}

type BlobWriter = Pick<
  PushRegistry,
  | 'startUpload'
  | 'uploadedSize'
  | 'appendChunk'
  | 'finishUpload'
  | 'cancelUpload'
  | 'putBlob'
  | 'mountBlob'
  | 'repositoriesWith'
  | 'deleteBlob'
>;

/** Takes blobs into hosted repositories. */
export function createBlobWriter({ store, records, requireUnnamed }: Contents, options: BlobWriterOptions): BlobWriter {
  const { checkQuota } = options;
  const uploads = createUploads({ store, maxBlobSize: options.maxBlobSize });

  /** Records that a repository has a blob, which is stored. */
  async function addBlob(repository: Repository, descriptor: Descriptor, signal: AbortSignal): Promise<Descriptor> {
    const known = await records.content(repository, descriptor.digest, signal);
    // What was pushed as a manifest remains one, for clients that push it as a blob too.
    if (known === undefined) await records.addContent(repository, descriptor, signal);
    await store.write(ownerKey(descriptor.digest, repository), bytesSource(Buffer.alloc(0)), { signal });
    return descriptor;
  }

  return {
    startUpload: (repository, { signal }) => uploads.start(repository, signal),
    uploadedSize: (repository, id, { signal }) => uploads.size({ repository, id }, signal),

    async appendChunk(repository, id, { chunk, signal }) {
      await checkQuota(repository, chunk.length ?? 0, signal);
      return uploads.append({ repository, id }, chunk, signal);
    },

    async finishUpload(repository, id, { digest, chunk, signal }) {
      const place = { repository, id };
      if (chunk !== undefined) await uploads.append(place, chunk, signal);
      await checkQuota(repository, await uploads.size(place, signal), signal);
      const size = await uploads.finish(place, digest, signal);
      const descriptor = await addBlob(repository, { digest, mediaType: BLOB_MEDIA_TYPE, size }, signal);
      await uploads.remove(place, signal);
      return descriptor;
    },

    async cancelUpload(repository, id, { signal }) {
      const place = { repository, id };
      await uploads.size(place, signal); // throws if there is no such upload
      await uploads.remove(place, signal);
    },

    async putBlob(repository, digest, { chunk, signal }) {
      await checkQuota(repository, chunk.length ?? 0, signal);
      const size = await uploads.put(digest, chunk, signal);
      return addBlob(repository, { digest, mediaType: BLOB_MEDIA_TYPE, size }, signal);
    },

    async mountBlob(repository, digest, { from, signal }) {
      for (const source of from) {
        const found = await records.content(source, digest, signal);
        const stored = found === undefined ? undefined : await store.stat(blobKey(digest), { signal });
        if (stored === undefined) continue;
        await checkQuota(repository, stored.size, signal);
        return addBlob(repository, { digest, mediaType: BLOB_MEDIA_TYPE, size: stored.size }, signal);
      }
      return undefined;
    },

    async *repositoriesWith(digest, { signal }) {
      for await (const { key } of store.list(ownersPrefix(digest), { signal })) {
        const owner = parseOwnerKey(key, digest);
        if (owner !== undefined) yield owner;
      }
    },

    async deleteBlob(repository, digest, { signal }) {
      const found = await records.content(repository, digest, signal);
      if (found?.mediaType !== BLOB_MEDIA_TYPE) throw new OciError('BLOB_UNKNOWN', `${repository} has no blob ${digest}`);
      await requireUnnamed(repository, digest, signal);
      await records.removeContent(repository, digest, signal);
      await store.remove(ownerKey(digest, repository), { signal });
    },
  };
}
