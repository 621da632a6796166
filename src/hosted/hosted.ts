import type { PushRegistry } from '../oci/push-registry.ts';
import { joinRepository, parseRepository, type Repository } from '../oci/reference.ts';
import { parseRepositoryKey, REPOSITORIES, repositoryPrefix } from '../store/keys.ts';
import type { UploadStore } from '../store/upload-store.ts';
import { createBlobWriter, type BlobWriterOptions } from './blob-writer.ts';
import { createContents } from './contents.ts';
import { createManifestWriter, type ManifestWriterOptions } from './manifest-writer.ts';
import { createReader, type ReaderOptions } from './reader.ts';

export interface HostedOptions extends ReaderOptions, BlobWriterOptions, ManifestWriterOptions {
  /** The first component of the repositories: `local`. */
  name: string;
  /** The storage itself, not a tier in front of it. */
  store: UploadStore;
}

/** Hosted repositories: pushed content is kept until it is deleted. Repositories are named without
 *  `name`.
 *  @throws OciError NAME_UNKNOWN, MANIFEST_UNKNOWN, BLOB_UNKNOWN; UNAVAILABLE if the store is; see
 *  PushRegistry */
export function hosted(options: HostedOptions): PushRegistry {
  const { name, store } = options;
  const contents = createContents(store);
  const blobs = createBlobWriter(contents, options);
  const full = (repository: Repository): Repository => joinRepository(name, repository);
  const ownName = (repository: Repository): Repository => parseRepository(repository.slice(name.length + 1));

  return {
    ...withNames(createReader(contents, options), full),
    ...withNames(blobs, full),
    ...withNames(createManifestWriter(contents, options), full),
    mountBlob: (repository, digest, context) => blobs.mountBlob(full(repository), digest, { ...context, from: context.from.map(full) }),

    async *repositoriesWith(digest, context) {
      for await (const owner of blobs.repositoriesWith(digest, context)) if (owner.startsWith(`${name}/`)) yield ownName(owner);
    },

    async *repositories({ signal, last }) {
      let after = last === undefined ? undefined : endOf(full(last));
      for (;;) {
        const next = await firstRepository(after, signal);
        if (next === undefined) return;
        yield ownName(next);
        after = endOf(next);
      }
    },
  };

  /** The first repository after `after`. Takes one listing per repository, since a repository may
   *  have thousands of records. */
  async function firstRepository(after: string | undefined, signal: AbortSignal): Promise<Repository | undefined> {
    for await (const { key } of store.list(`${REPOSITORIES}${name}/`, { signal, ...(after === undefined ? {} : { after }) })) {
      const record = parseRepositoryKey(key);
      if (record !== undefined) return record.repository;
    }
    return undefined;
  }
}

type Method = (repository: Repository, ...rest: unknown[]) => unknown;

/** `methods`, called with the full name of the repository that is their first argument. */
function withNames<Methods extends object>(methods: Methods, full: (repository: Repository) => Repository): Methods {
  const named = Object.entries(methods as Record<string, Method>).map(([key, method]) => {
    return [key, (repository: Repository, ...rest: unknown[]) => method(full(repository), ...rest)] as const;
  });
  return Object.fromEntries(named) as unknown as Methods;
}

/** A key after all records of a repository, and before those of the next. */
function endOf(repository: Repository): string {
  return `${repositoryPrefix(repository)}_~`;
}
