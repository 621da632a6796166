import { OciError } from '../oci/error.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { BLOBS, parseBlobKey, parseRepositoryKey, REPOSITORIES } from '../store/keys.ts';
import type { Store } from '../store/store.ts';

export interface QuotaOptions {
  name: string;
  /** In bytes: of all repositories, or by prefix of their names. */
  quota: number | Readonly<Record<string, number>> | undefined;
  store: Store;
}

/** What a quota leaves. */
export interface Room {
  /** How many more fit; Infinity: there is no limit. */
  bytes: number;
  /** What the quota allows and what is used, for an error. */
  state: string;
}

export const UNLIMITED: Room = { bytes: Infinity, state: 'there is no quota' };

/** The remaining quota of the repositories. */
export interface Quota {
  room(this: void, repository: Repository, signal: AbortSignal): Promise<Room>;
  /** Reserves `size` bytes of the quota while `store` runs, and releases them if it fails.
   *  @throws OciError DENIED: they do not fit; what `store` throws */
  hold<Result>(this: void, what: Held, store: () => Promise<Result>): Promise<Result>;
}

export interface Held {
  /** With the name of the hosted registry in front. */
  repository: Repository;
  /** Bytes. */
  size: number;
  signal: AbortSignal;
}

export const noQuota: Quota = { room: () => Promise.resolve(UNLIMITED), hold: (_what, store) => store() };

/** How old a count of the stored bytes may be, in ms; bytes that this process has stored since are
 *  added. */
const COUNT_LIFETIME_MS = 60_000;
/** How old a count may be to refuse a push, in ms: bytes stored since may have replaced counted
 *  ones. */
const REFUSAL_LIFETIME_MS = 1_000;

interface Limit {
  /** With `name` in front. */
  prefix: string;
  /** Bytes. */
  allowed: number;
  counted: number;
  /** Bytes stored since the count began. */
  added: number;
  /** Bytes reserved for writes in progress. */
  held: number;
  /** When the count began, on the process's clock. */
  at: number;
  counting: Promise<void> | undefined;
}

/** Refuses pushes that would exceed the quota. A blob that several repositories of one prefix share
 *  counts once. Without a lock server, concurrent pushes to several replicas may exceed a quota by
 *  the bytes that they push within a minute. */
export function createQuota({ name, quota, store }: QuotaOptions): Quota {
  const entries = typeof quota === 'number' ? [['', quota] as const] : Object.entries(quota ?? {});
  const limits = entries.map(([prefix, allowed]): Limit => {
    return { prefix: `${name}/${prefix}`, allowed, counted: 0, added: 0, held: 0, at: -Infinity, counting: undefined };
  });
  const limitsOf = (repository: Repository): Limit[] => limits.filter(({ prefix }) => repository.startsWith(prefix));

  /** Requests that need a count at the same time share one. */
  async function recount(limit: Limit): Promise<void> {
    limit.counting ??= (async () => {
      const [at, before] = [performance.now(), limit.added];
      limit.counted = await countStored(store, limit.prefix, AbortSignal.timeout(COUNT_TIMEOUT_MS));
      limit.added -= before;
      limit.at = at;
    })().finally(() => (limit.counting = undefined));
    await limit.counting;
  }

  async function roomOf(limit: Limit, size: number): Promise<Room> {
    if (performance.now() - limit.at > COUNT_LIFETIME_MS) await recount(limit);
    const room = () => limit.allowed - usedOf(limit);
    if (room() < size && limit.added > 0 && performance.now() - limit.at > REFUSAL_LIFETIME_MS) await recount(limit);
    return { bytes: Math.max(0, room()), state: stateOf(limit) };
  }

  return {
    async room(repository, signal) {
      signal.throwIfAborted();
      const rooms = await Promise.all(limitsOf(repository).map((limit) => roomOf(limit, 1)));
      return rooms.reduce((tightest, room) => (room.bytes < tightest.bytes ? room : tightest), UNLIMITED);
    },

    async hold({ repository, size, signal }, storing) {
      signal.throwIfAborted();
      const own = limitsOf(repository);
      if (own.length === 0) return storing();
      for (const limit of own) await roomOf(limit, size);
      // No await from here on: the check and the reservation must be atomic.
      for (const limit of own) {
        if (usedOf(limit) + size > limit.allowed) throw new OciError('DENIED', `${stateOf(limit)}: ${size} more do not fit`);
      }
      for (const limit of own) limit.held += size;
      try {
        const result = await storing();
        for (const limit of own) limit.added += size;
        return result;
      } finally {
        for (const limit of own) limit.held -= size;
      }
    },
  };
}

function usedOf({ counted, added, held }: Limit): number {
  return counted + added + held;
}

function stateOf(limit: Limit): string {
  return `${limit.prefix} may hold ${limit.allowed} bytes and holds ${usedOf(limit)}`;
}

const COUNT_TIMEOUT_MS = 300_000;

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
