import { LRUCache } from 'lru-cache';
import { readAll } from '../io/body.ts';
import { BLOB_MEDIA_TYPE, MAX_MANIFEST_SIZE, type Descriptor } from '../oci/descriptor.ts';
import { digestOf, isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { Reference, Repository, Tag } from '../oci/reference.ts';
import { blobKey, parseRepositoryKey, repositoryPrefix, tagKey } from '../store/keys.ts';
import type { UploadStore } from '../store/upload-store.ts';
import { parsePushedManifest } from './pushed-manifest.ts';
import { createHostedRecords, type HostedRecords } from './records.ts';

/** Bytes of manifests in memory: the content of a digest never changes. */
const MANIFESTS_IN_MEMORY = 16 * 2 ** 20;

/** The contents of hosted repositories. Repositories have their full names: `local/team/app`. */
export interface Contents {
  store: UploadStore;
  records: HostedRecords;
  /** @throws OciError MANIFEST_UNKNOWN */
  locate(this: void, repository: Repository, reference: Reference, signal: AbortSignal): Promise<Descriptor>;
  /** @throws OciError UNAVAILABLE: the manifest is missing in the store, or damaged */
  readManifest(this: void, descriptor: Descriptor, signal: AbortSignal): Promise<Buffer>;
  /** Keeps the bytes of a manifest that was just stored in memory. */
  rememberManifest(this: void, digest: Digest, bytes: Uint8Array): void;
  /** The tags of a repository and their digests. */
  tagsOf(this: void, repository: Repository, signal: AbortSignal): AsyncIterable<{ tag: Tag; digest: Digest | undefined }>;
  /** @throws OciError DENIED: a manifest of the repository names `digest` */
  requireUnnamed(this: void, repository: Repository, digest: Digest, signal: AbortSignal): Promise<void>;
  /** Removes the record of a blob or manifest. A concurrent push writes its manifest before it
   *  checks that everything the manifest names is there (manifest-writer.ts); this function removes
   *  the record before it looks for manifests again. So at least one of the two sees the other.
   *  @throws OciError DENIED, with the record back in place: a manifest of the repository names
   *  it */
  removeUnnamed(this: void, repository: Repository, content: Descriptor, signal: AbortSignal): Promise<void>;
}

export function createContents(store: UploadStore): Contents {
  const records = createHostedRecords(store);
  const manifests = new LRUCache<Digest, Buffer>({ maxSize: MANIFESTS_IN_MEMORY, sizeCalculation: (bytes) => bytes.length + 1 });

  async function readManifest({ digest }: Descriptor, signal: AbortSignal): Promise<Buffer> {
    const remembered = manifests.get(digest);
    if (remembered !== undefined) return remembered;
    const found = await store.read(blobKey(digest), { signal });
    const bytes = found === undefined ? undefined : await readAll(found.body, MAX_MANIFEST_SIZE);
    if (bytes === undefined || digestOf(bytes, splitDigest(digest).algorithm) !== digest) {
      throw new OciError('UNAVAILABLE', `the stored manifest ${digest} is missing or damaged: push it again`, { origin: 'storage' });
    }
    manifests.set(digest, bytes);
    return bytes;
  }

  async function* manifestsOf(repository: Repository, signal: AbortSignal): AsyncGenerator<Descriptor> {
    for await (const { key } of store.list(repositoryPrefix(repository), { signal })) {
      const record = parseRepositoryKey(key);
      if (record === undefined || !('member' in record) || record.repository !== repository) continue;
      const manifest = await records.manifest(repository, record.member, signal);
      if (manifest !== undefined) yield manifest;
    }
  }

  async function requireUnnamed(repository: Repository, digest: Digest, signal: AbortSignal): Promise<void> {
    for await (const manifest of manifestsOf(repository, signal)) {
      if (manifest.digest === digest) continue;
      const { named } = parsePushedManifest(await readManifest(manifest, signal), manifest.mediaType);
      if (!named.includes(digest)) continue;
      throw new OciError('DENIED', `the manifest ${manifest.digest} of ${repository} names ${digest}: delete it first`);
    }
  }

  return {
    store,
    records,
    readManifest,
    rememberManifest: (digest, bytes) => void manifests.set(digest, Buffer.from(bytes)),

    async locate(repository, reference, signal) {
      const digest = isDigest(reference) ? reference : await records.tag(repository, reference, signal);
      const found = digest === undefined ? undefined : await records.content(repository, digest, signal);
      if (found !== undefined && found.mediaType !== BLOB_MEDIA_TYPE) return found;
      throw new OciError('MANIFEST_UNKNOWN', `${repository} has no manifest ${reference}`);
    },

    async *tagsOf(repository, signal) {
      for await (const { key } of store.list(tagKey(repository, '' as Tag), { signal })) {
        const record = parseRepositoryKey(key);
        if (record !== undefined && 'tag' in record) yield { tag: record.tag, digest: await records.tag(repository, record.tag, signal) };
      }
    },

    requireUnnamed,

    async removeUnnamed(repository, content, signal) {
      await requireUnnamed(repository, content.digest, signal);
      await records.removeContent(repository, content.digest, signal);
      try {
        await requireUnnamed(repository, content.digest, signal);
      } catch (error) {
        await records.addContent(repository, content, signal);
        throw error;
      }
    },
  };
}
