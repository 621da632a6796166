import { BLOB_MEDIA_TYPE, OCI_INDEX, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { isTag, type Repository, type Tag } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';
import { blobKey, parseRepositoryKey, repositoryPrefix, tagKey } from '../store/keys.ts';
import type { Contents } from './contents.ts';

export interface ReaderOptions {
  /** Called with each image that is pulled. */
  used(this: void, repository: Repository, digest: Digest): void;
}

/** Reads hosted repositories, always from the store: another replica may have written to it a
 *  moment ago. */
export function createReader({ store, records, locate, findManifest, readManifest }: Contents, { used }: ReaderOptions): Registry {
  async function findBlob(repository: Repository, digest: Digest, signal: AbortSignal): Promise<Descriptor> {
    const found = await records.content(repository, digest, signal);
    if (found === undefined) throw new OciError('BLOB_UNKNOWN', `${repository} has no blob ${digest}`);
    return { ...found, mediaType: BLOB_MEDIA_TYPE };
  }

  async function exists(repository: Repository, signal: AbortSignal): Promise<boolean> {
    for await (const { key } of store.list(repositoryPrefix(repository), { signal }))
      if (parseRepositoryKey(key)?.repository === repository) return true;
    return false;
  }

  return {
    async resolve(repository, reference, { signal }) {
      const descriptor = await locate(repository, reference, signal);
      // Clients push a manifest again only if HEAD answers 404. GET, which follows, has the bytes
      // in memory.
      if ((await findManifest(descriptor, signal)) === undefined)
        throw new OciError('MANIFEST_UNKNOWN', `the stored manifest ${descriptor.digest} is missing or damaged: push it again`);
      used(repository, descriptor.digest);
      return descriptor;
    },

    async manifest(repository, reference, { signal }) {
      const descriptor = await locate(repository, reference, signal);
      const bytes = await readManifest(descriptor, signal);
      used(repository, descriptor.digest);
      return { descriptor: { ...descriptor, size: bytes.length }, bytes, stale: false };
    },

    async stat(repository, digest, { signal }) {
      const [found, stored] = await Promise.all([findBlob(repository, digest, signal), store.stat(blobKey(digest), { signal })]);
      // Clients push a blob again only if HEAD answers 404.
      if (stored?.size !== found.size)
        throw new OciError('BLOB_UNKNOWN', `the stored blob ${digest} is missing or incomplete: push it again`);
      return found;
    },

    async blob(repository, digest, { signal, range }) {
      await findBlob(repository, digest, signal);
      const found = await store.read(blobKey(digest), range === undefined ? { signal } : { signal, range });
      if (found === undefined)
        throw new OciError('UNAVAILABLE', `the stored blob ${digest} is missing: push it again`, { origin: 'storage' });
      return { digest, size: found.size, range: found.range, body: found.body };
    },

    async *tags(repository, { signal, last }) {
      const prefix = tagKey(repository, '' as Tag);
      let isEmpty = true;
      for await (const { key } of store.list(prefix, { signal, ...(last === undefined ? {} : { after: prefix + last }) })) {
        const tag = key.slice(prefix.length);
        isEmpty = false;
        if (isTag(tag)) yield [tag];
      }
      if (isEmpty && !(await exists(repository, signal))) throw new OciError('NAME_UNKNOWN', `there is no repository ${repository}`);
    },

    async referrers(repository, digest, { signal, artifactType }) {
      const manifests: unknown[] = [];
      for await (const referrer of records.referrers(repository, digest, signal)) {
        if (artifactType === undefined || referrer.artifactType === artifactType) manifests.push(referrer);
      }
      const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }));
      return { index, filtersApplied: artifactType !== undefined };
    },
  };
}
