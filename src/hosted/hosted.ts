import { LRUCache } from 'lru-cache';
import { inParallel } from '../async/parallel.ts';
import { readAll } from '../io/body.ts';
import { BLOB_MEDIA_TYPE, MAX_MANIFEST_SIZE, OCI_INDEX, type Descriptor } from '../oci/descriptor.ts';
import { digestOf, isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { PushRegistry } from '../oci/push-registry.ts';
import type { RangeRequest } from '../oci/range.ts';
import { isTag, joinRepository, type Reference, type Repository, type Tag } from '../oci/reference.ts';
import type { Blob, Manifest } from '../oci/registry.ts';
import { claimBlobs } from '../store/claims.ts';
import { blobKey, memberKey, ownerKey, ownersPrefix, parseOwnerKey, parseRepositoryKey, REPOSITORIES, tagKey } from '../store/keys.ts';
import { bytesSource } from '../store/store.ts';
import type { UploadStore } from '../store/upload-store.ts';
import { parsePushedManifest, type ManifestParts } from './pushed-manifest.ts';
import { createHostedRecords } from './records.ts';
import { createUploads } from './uploads.ts';

export interface HostedOptions {
  /** The first component of the repositories: `local`. */
  name: string;
  /** Where everything is kept: the storage itself, not a tier in front of it. */
  store: UploadStore;
  /** Bytes. */
  maxBlobSize: number;
  /** Tags that never change their meaning. */
  isImmutable(this: void, tag: Tag): boolean;
  /** Called before `size` more bytes are kept for a repository (with `name` in front). @throws OciError DENIED: its quota does not allow them */
  checkQuota(this: void, repository: Repository, size: number, signal: AbortSignal): Promise<void>;
  /** This image was pulled now. */
  used(this: void, repository: Repository, digest: Digest): void;
}

/** Bytes of manifests in memory: what a digest names never changes. */
const MANIFESTS_IN_MEMORY = 16 * 2 ** 20;
const STATS_AT_ONCE = 16;

/** Repositories of one's own: what is pushed to them is kept until it is deleted. Repositories are named without `name`.
 *  @throws OciError NAME_UNKNOWN, MANIFEST_UNKNOWN, BLOB_UNKNOWN; UNAVAILABLE when the store is; see PushRegistry */
export function hosted(options: HostedOptions): PushRegistry {
  const { name, store } = options;
  const records = createHostedRecords(store);
  const uploads = createUploads({ store, maxBlobSize: options.maxBlobSize });
  const manifests = new LRUCache<Digest, Buffer>({ maxSize: MANIFESTS_IN_MEMORY, sizeCalculation: (bytes) => bytes.length + 1 });
  const full = (repository: Repository): Repository => joinRepository(name, repository);

  async function locate(repository: Repository, reference: Reference, signal: AbortSignal): Promise<Descriptor> {
    const digest = isDigest(reference) ? reference : await records.tag(full(repository), reference, signal);
    const found = digest === undefined ? undefined : await records.content(full(repository), digest, signal);
    if (found !== undefined && found.mediaType !== BLOB_MEDIA_TYPE) return found;
    throw new OciError('MANIFEST_UNKNOWN', `${full(repository)} has no manifest ${reference}`);
  }

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

  async function findBlob(repository: Repository, digest: Digest, signal: AbortSignal): Promise<Descriptor> {
    const found = await records.content(full(repository), digest, signal);
    if (found === undefined) throw new OciError('BLOB_UNKNOWN', `${full(repository)} has no blob ${digest}`);
    return { ...found, mediaType: BLOB_MEDIA_TYPE };
  }

  /** Records that a repository has a blob, which is stored. */
  async function addBlob(repository: Repository, descriptor: Descriptor, signal: AbortSignal): Promise<Descriptor> {
    const known = await records.content(full(repository), descriptor.digest, signal);
    // What was pushed as a manifest stays one, for clients that push it as a blob too.
    if (known === undefined) await records.addContent(full(repository), { ...descriptor, mediaType: BLOB_MEDIA_TYPE }, signal);
    await store.write(ownerKey(descriptor.digest, full(repository)), bytesSource(Buffer.alloc(0)), { signal });
    return descriptor;
  }

  /** @throws OciError MANIFEST_BLOB_UNKNOWN: the repository lacks something that a manifest names */
  async function requireParts(repository: Repository, { required }: ManifestParts, signal: AbortSignal): Promise<void> {
    await inParallel(required, STATS_AT_ONCE, async (digest) => {
      const [record, stored] = await Promise.all([
        records.content(full(repository), digest, signal),
        store.stat(blobKey(digest), { signal }),
      ]);
      if (record !== undefined && stored !== undefined) return;
      throw new OciError('MANIFEST_BLOB_UNKNOWN', `${full(repository)} has no ${digest}, which the manifest names: push it first`);
    });
  }

  async function setTag(repository: Repository, tag: Tag, { digest, signal }: { digest: Digest; signal: AbortSignal }): Promise<void> {
    await requireMutable(repository, tag, { digest, signal });
    await records.setTag(full(repository), tag, digest, signal);
  }

  async function requireMutable(
    repository: Repository,
    tag: Tag,
    { digest, signal }: { digest: Digest | undefined; signal: AbortSignal },
  ): Promise<void> {
    if (!options.isImmutable(tag)) return;
    const before = await records.tag(full(repository), tag, signal);
    if (before === undefined || before === digest) return;
    throw new OciError(
      'DENIED',
      `the tag ${tag} of ${full(repository)} is immutable (immutableTags), and means ${before}: push another tag`,
    );
  }

  /** The tags of a repository and what they mean. */
  async function* tagsOf(repository: Repository, signal: AbortSignal): AsyncGenerator<{ tag: Tag; digest: Digest | undefined }> {
    for await (const { key } of store.list(tagKey(full(repository), '' as Tag), { signal })) {
      const record = parseRepositoryKey(key);
      if (record !== undefined && 'tag' in record)
        yield { tag: record.tag, digest: await records.tag(full(repository), record.tag, signal) };
    }
  }

  /** @throws OciError DENIED: a manifest of the repository names `digest` */
  async function requireUnnamed(repository: Repository, digest: Digest, signal: AbortSignal): Promise<void> {
    const prefix = memberKey(full(repository), digest).split('/_members/')[0] ?? '';
    for await (const { key } of store.list(`${prefix}/_members/`, { signal })) {
      const record = parseRepositoryKey(key);
      if (record === undefined || !('member' in record) || record.member === digest) continue;
      const content = await records.content(full(repository), record.member, signal);
      if (content === undefined || content.mediaType === BLOB_MEDIA_TYPE) continue;
      const { named } = parsePushedManifest(await readManifest(content, signal), content.mediaType);
      if (named.includes(digest))
        throw new OciError('DENIED', `the manifest ${record.member} of ${full(repository)} names ${digest}: delete it first`);
    }
  }

  return {
    async resolve(repository, reference, { signal }) {
      const descriptor = await locate(repository, reference, signal);
      options.used(full(repository), descriptor.digest);
      return descriptor;
    },

    async manifest(repository, reference, { signal }): Promise<Manifest> {
      const descriptor = await locate(repository, reference, signal);
      const bytes = await readManifest(descriptor, signal);
      options.used(full(repository), descriptor.digest);
      return { descriptor: { ...descriptor, size: bytes.length }, bytes, stale: false };
    },

    stat: (repository, digest, { signal }) => findBlob(repository, digest, signal),

    async blob(repository, digest, { signal, range }): Promise<Blob> {
      await findBlob(repository, digest, signal);
      const found = await store.read(blobKey(digest), { signal, ...rangeOf(range) });
      if (found === undefined)
        throw new OciError('UNAVAILABLE', `the stored blob ${digest} is missing: push it again`, { origin: 'storage' });
      return { digest, size: found.size, range: found.range, body: found.body };
    },

    async *tags(repository, { signal, last }) {
      const prefix = tagKey(full(repository), '' as Tag);
      for await (const { key } of store.list(prefix, { signal, ...(last === undefined ? {} : { after: prefix + last }) })) {
        const tag = key.slice(prefix.length);
        if (isTag(tag)) yield [tag];
      }
    },

    async referrers(repository, digest, { signal, artifactType }) {
      const manifests: unknown[] = [];
      for await (const referrer of records.referrers(full(repository), digest, signal)) {
        if (artifactType === undefined || referrer.artifactType === artifactType) manifests.push(referrer);
      }
      const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
      return { index, filtersApplied: artifactType !== undefined };
    },

    startUpload: (repository, { signal }) => uploads.start(full(repository), signal),
    uploadedSize: (repository, id, { signal }) => uploads.size({ repository: full(repository), id }, signal),

    async appendChunk(repository, id, { chunk, signal }) {
      await options.checkQuota(full(repository), chunk.length ?? 0, signal);
      return uploads.append({ repository: full(repository), id }, chunk, signal);
    },

    async finishUpload(repository, id, { digest, chunk, signal }) {
      const place = { repository: full(repository), id };
      if (chunk !== undefined) await uploads.append(place, chunk, signal);
      await options.checkQuota(full(repository), await uploads.size(place, signal), signal);
      const size = await uploads.finish(place, digest, signal);
      const descriptor = await addBlob(repository, { digest, mediaType: BLOB_MEDIA_TYPE, size }, signal);
      await uploads.remove(place, signal);
      return descriptor;
    },

    async cancelUpload(repository, id, { signal }) {
      const place = { repository: full(repository), id };
      await uploads.size(place, signal);
      await uploads.remove(place, signal);
    },

    async putBlob(repository, digest, { chunk, signal }) {
      await options.checkQuota(full(repository), chunk.length ?? 0, signal);
      const size = await uploads.put(digest, chunk, signal);
      return addBlob(repository, { digest, mediaType: BLOB_MEDIA_TYPE, size }, signal);
    },

    async mountBlob(repository, digest, { from, signal }) {
      for (const source of from) {
        const found = await records.content(full(source), digest, signal);
        const stored = found === undefined ? undefined : await store.stat(blobKey(digest), { signal });
        if (stored === undefined) continue;
        await options.checkQuota(full(repository), stored.size, signal);
        return addBlob(repository, { digest, mediaType: BLOB_MEDIA_TYPE, size: stored.size }, signal);
      }
      return undefined;
    },

    async *repositoriesWith(digest, { signal }) {
      for await (const { key } of store.list(ownersPrefix(digest), { signal })) {
        const owner = parseOwnerKey(key, digest);
        if (owner?.startsWith(`${name}/`) === true) yield owner.slice(name.length + 1) as Repository;
      }
    },

    async putManifest(repository, reference, { bytes, mediaType, tags, signal }) {
      const parts = parsePushedManifest(bytes, mediaType);
      const digest = digestOf(bytes, isDigest(reference) ? splitDigest(reference).algorithm : 'sha256');
      if (isDigest(reference) && reference !== digest) {
        throw new OciError('DIGEST_INVALID', `the manifest has the digest ${digest}, and was pushed as ${reference}`);
      }
      const names = [...(isDigest(reference) ? [] : [reference]), ...tags];
      for (const tag of names) await requireMutable(repository, tag, { digest, signal });
      await options.checkQuota(full(repository), bytes.length, signal);
      await claimBlobs(store, [digest, ...parts.named], signal);
      await requireParts(repository, parts, signal);
      const descriptor = { digest, mediaType: parts.mediaType, size: bytes.length };
      await store.write(blobKey(digest), bytesSource(bytes), { signal });
      await records.addContent(full(repository), descriptor, signal);
      if (parts.subject !== undefined)
        await records.addReferrer(full(repository), parts.subject, { ...descriptor, ...parts.referrer }, signal);
      for (const tag of names) await setTag(repository, tag, { digest, signal });
      manifests.set(digest, Buffer.from(bytes));
      return { descriptor, subject: parts.subject };
    },

    async deleteManifest(repository, reference, { signal }) {
      if (!isDigest(reference)) {
        const digest = await records.tag(full(repository), reference, signal);
        if (digest === undefined) throw new OciError('MANIFEST_UNKNOWN', `${full(repository)} has no tag ${reference}`);
        await requireMutable(repository, reference, { digest: undefined, signal });
        await records.removeTag(full(repository), reference, signal);
        return;
      }
      const descriptor = await locate(repository, reference, signal);
      await requireUnnamed(repository, reference, signal);
      const named: Tag[] = [];
      for await (const { tag, digest } of tagsOf(repository, signal)) if (digest === reference) named.push(tag);
      for (const tag of named) await requireMutable(repository, tag, { digest: undefined, signal });
      for (const tag of named) await records.removeTag(full(repository), tag, signal);
      const { subject } = parsePushedManifest(await readManifest(descriptor, signal), descriptor.mediaType);
      if (subject !== undefined) await records.removeReferrer(full(repository), subject, reference, signal);
      await records.removeContent(full(repository), reference, signal);
    },

    async deleteBlob(repository, digest, { signal }) {
      const found = await records.content(full(repository), digest, signal);
      if (found === undefined || found.mediaType !== BLOB_MEDIA_TYPE) {
        throw new OciError('BLOB_UNKNOWN', `${full(repository)} has no blob ${digest}`);
      }
      await requireUnnamed(repository, digest, signal);
      await records.removeContent(full(repository), digest, signal);
      await store.remove(ownerKey(digest, full(repository)), { signal });
    },

    async *repositories({ signal, last }) {
      const prefix = `${REPOSITORIES}${name}/`;
      let after = last === undefined ? undefined : endOf(full(last));
      for (;;) {
        const next = await firstRepository(prefix, after, signal);
        if (next === undefined) return;
        yield next.slice(name.length + 1) as Repository;
        after = endOf(next);
      }
    },
  };

  async function firstRepository(prefix: string, after: string | undefined, signal: AbortSignal): Promise<Repository | undefined> {
    for await (const { key } of store.list(prefix, { signal, ...(after === undefined ? {} : { after }) })) {
      const record = parseRepositoryKey(key);
      if (record !== undefined) return record.repository;
    }
    return undefined;
  }
}

/** A key behind all records of a repository, and before those of the next. */
function endOf(repository: Repository): string {
  return `${REPOSITORIES}${repository}/_~`;
}

function rangeOf(range: RangeRequest | undefined): { range?: RangeRequest } {
  return range === undefined ? {} : { range };
}
