import { LRUCache } from 'lru-cache';
import { inParallel } from '../async/parallel.ts';
import { readAll } from '../io/body.ts';
import { BLOB_MEDIA_TYPE, MAX_MANIFEST_SIZE, type Descriptor } from '../oci/descriptor.ts';
import { digestOf, isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { Reference, Repository, Tag } from '../oci/reference.ts';
import { createClaimer, type Claimer } from '../store/claims.ts';
import { blobKey, isManifestRecord, membersPrefix, parseRepositoryKey, tagKey } from '../store/keys.ts';
import type { UploadStore } from '../store/upload-store.ts';
import { parsePushedManifest } from './pushed-manifest.ts';
import { createHostedRecords, type HostedRecords } from './records.ts';

/** Bytes of manifests in memory: the content of a digest never changes. */
const MANIFESTS_IN_MEMORY = 16 * 2 ** 20;
const READS_AT_ONCE = 32;

/** The contents of hosted repositories. Repositories have their full names: `local/team/app`. */
export interface Contents {
  store: UploadStore;
  records: HostedRecords;
  claimer: Claimer;
  /** @throws OciError MANIFEST_UNKNOWN */
  locate(this: void, repository: Repository, reference: Reference, signal: AbortSignal): Promise<Descriptor>;
  /** @returns undefined: the manifest is missing in the store, or damaged */
  findManifest(this: void, descriptor: Descriptor, signal: AbortSignal): Promise<Buffer | undefined>;
  /** @throws OciError UNAVAILABLE: the manifest is missing in the store, or damaged */
  readManifest(this: void, descriptor: Descriptor, signal: AbortSignal): Promise<Buffer>;
  /** Keeps the bytes of a manifest that was just stored in memory. */
  rememberManifest(this: void, digest: Digest, bytes: Uint8Array): void;
  /** The tags of a manifest. */
  tagsOf(this: void, repository: Repository, digest: Digest, signal: AbortSignal): Promise<Tag[]>;
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
  const claimer = createClaimer(store);
  const manifests = new LRUCache<Digest, Buffer>({ maxSize: MANIFESTS_IN_MEMORY, sizeCalculation: (bytes) => bytes.length + 1 });

  async function findManifest({ digest }: Descriptor, signal: AbortSignal): Promise<Buffer | undefined> {
    const remembered = manifests.get(digest);
    if (remembered !== undefined) return remembered;
    const found = await store.read(blobKey(digest), { signal });
    const bytes = found === undefined ? undefined : await readAll(found.body, MAX_MANIFEST_SIZE);
    if (bytes === undefined || digestOf(bytes, splitDigest(digest).algorithm) !== digest) return undefined;
    manifests.set(digest, bytes);
    return bytes;
  }

  async function readManifest(descriptor: Descriptor, signal: AbortSignal): Promise<Buffer> {
    const bytes = await findManifest(descriptor, signal);
    if (bytes !== undefined) return bytes;
    throw new OciError('UNAVAILABLE', `the stored manifest ${descriptor.digest} is missing or damaged: push it again`, {
      origin: 'storage',
    });
  }

  async function* manifestsOf(repository: Repository, signal: AbortSignal): AsyncGenerator<Digest> {
    for await (const { key, size } of store.list(membersPrefix(repository), { signal })) {
      const record = isManifestRecord(size) ? parseRepositoryKey(key) : undefined;
      if (record !== undefined && 'member' in record) yield record.member;
    }
  }

  async function requireUnnamed(repository: Repository, digest: Digest, signal: AbortSignal): Promise<void> {
    await inParallel(manifestsOf(repository, signal), READS_AT_ONCE, async (member) => {
      const manifest = member === digest ? undefined : await records.manifest(repository, member, signal);
      if (manifest === undefined) return;
      const { named } = parsePushedManifest(await readManifest(manifest, signal), manifest.mediaType);
      if (!named.includes(digest)) return;
      throw new OciError('DENIED', `the manifest ${member} of ${repository} names ${digest}: delete it first`);
    });
  }

  return {
    store,
    records,
    claimer,
    findManifest,
    readManifest,
    rememberManifest: (digest, bytes) => void manifests.set(digest, Buffer.from(bytes)),

    async locate(repository, reference, signal) {
      const digest = isDigest(reference) ? reference : await records.tag(repository, reference, signal);
      const found = digest === undefined ? undefined : await records.content(repository, digest, signal);
      if (found !== undefined && found.mediaType !== BLOB_MEDIA_TYPE) return found;
      throw new OciError('MANIFEST_UNKNOWN', `${repository} has no manifest ${reference}`);
    },

    async tagsOf(repository, digest, signal) {
      const tags: Tag[] = [];
      await inParallel(store.list(tagKey(repository, '' as Tag), { signal }), READS_AT_ONCE, async ({ key }) => {
        const record = parseRepositoryKey(key);
        if (record === undefined || !('tag' in record)) return;
        if ((await records.tag(repository, record.tag, signal)) === digest) tags.push(record.tag);
      });
      return tags;
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
