import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { blobKey, memberKey, usedKey } from '../store/keys.ts';
import { bytesSource, type Store } from '../store/store.ts';

/** The manifests and blobs of one image of the file. */
export interface Tree {
  manifests: { descriptor: Descriptor; bytes: Uint8Array }[];
  blobs: Map<Digest, Descriptor>;
  missing: string[];
}

/** Writes the manifests of an image or referrer whose blobs are stored, and the access records of
 *  its repository. */
export async function writeTree(
  tree: Tree,
  { repository, store, signal }: { repository: Repository; store: Store; signal: AbortSignal },
): Promise<void> {
  const context = { signal };
  for (const { descriptor, bytes } of tree.manifests) await store.write(blobKey(descriptor.digest), bytesSource(bytes), context);
  for (const { digest, size } of tree.blobs.values()) {
    await writeRecord(store, memberKey(repository, digest), { record: { mediaType: BLOB_MEDIA_TYPE, size }, signal });
  }
  const now = new Date();
  for (const { descriptor } of tree.manifests) {
    const { mediaType, digest, size } = descriptor;
    await writeRecord(store, memberKey(repository, digest), { record: { mediaType, size }, signal });
    await store.write(usedKey(now, repository, digest), bytesSource(Buffer.alloc(0)), context);
  }
}

export async function writeRecord(store: Store, key: string, { record, signal }: { record: object; signal: AbortSignal }): Promise<void> {
  await store.write(key, bytesSource(Buffer.from(JSON.stringify(record))), { signal });
}
