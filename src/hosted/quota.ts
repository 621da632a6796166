import { OciError } from '../oci/error.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { BLOBS, parseBlobKey, parseRepositoryKey, REPOSITORIES } from '../store/keys.ts';
import type { Store } from '../store/store.ts';

export interface QuotaOptions {
  name: string;
  /** Bytes, of all repositories or by their prefix. */
  quota: number | Readonly<Record<string, number>> | undefined;
  store: Store;
}

/** How old a count of what is stored may be, in ms; what this process has let in since is added to it. */
const COUNT_LIFETIME_MS = 60_000;

/** Refuses what would not fit. A blob that several repositories of one prefix share counts once. Without a lock server, pushes
 *  to several replicas at once may pass a quota by what they bring within a minute. */
export function createQuota({
  name,
  quota,
  store,
}: QuotaOptions): (repository: Repository, size: number, signal: AbortSignal) => Promise<void> {
  const limits = typeof quota === 'number' ? [['', quota] as const] : Object.entries(quota ?? {});
  const prefixes = limits.map(([prefix, allowed]) => ({ prefix: `${name}/${prefix}`, allowed, counted: 0, added: 0, at: -Infinity }));

  return async (repository, size, signal) => {
    for (const own of prefixes.filter(({ prefix }) => repository.startsWith(prefix))) {
      if (performance.now() - own.at > COUNT_LIFETIME_MS) {
        own.counted = await countStored(store, own.prefix, signal);
        own.added = 0;
        own.at = performance.now();
      }
      const used = own.counted + own.added;
      if (used + size > own.allowed) {
        throw new OciError(
          'DENIED',
          `${own.prefix} may hold ${own.allowed} bytes and holds ${used}: ${size} more do not fit; delete something`,
        );
      }
      own.added += size;
    }
  };
}

async function countStored(store: Store, prefix: string, signal: AbortSignal): Promise<number> {
  const digests = new Set<Digest>();
  for await (const { key } of store.list(`${REPOSITORIES}${prefix.split('/')[0]}/`, { signal })) {
    const record = parseRepositoryKey(key);
    if (record !== undefined && 'member' in record && record.repository.startsWith(prefix)) digests.add(record.member);
  }
  if (digests.size === 0) return 0;
  let bytes = 0;
  for await (const { key, size } of store.list(BLOBS, { signal })) {
    const digest = parseBlobKey(key);
    if (digest !== undefined && digests.has(digest)) bytes += size;
  }
  return bytes;
}
