import { LRUCache } from 'lru-cache';
import { createExpiringCache } from '../io/expiring-cache.ts';
import { parseManifest } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import { readManifest } from '../upkeep/inventory.ts';
import { readTags } from '../upkeep/tags.ts';
import type { Store } from '../store/store.ts';

/** Finds the tags that lead to a digest: of an image, one of its platforms, or one of their
 *  blobs. */
export interface KnownTags {
  /** Records that a tag refers to this manifest. */
  noteTag(this: void, repository: Repository, tag: Tag, digest: Digest): void;
  /** Records the contents of a manifest. */
  noteManifest(this: void, repository: Repository, digest: Digest, bytes: Uint8Array): void;
  /** The recorded tags. */
  recall(this: void, repository: Repository, digest: Digest): readonly Tag[];
  /** The tags found in the store, and the recorded ones. @throws OciError UNAVAILABLE */
  find(this: void, repository: Repository, digest: Digest, signal: AbortSignal): Promise<readonly Tag[]>;
}

/** Entries, each a few hundred bytes. */
const IN_MEMORY = 50_000;
/** Repositories whose stored tags are kept in memory. */
const REPOSITORIES_IN_MEMORY = 100;
/** How long the stored tags of a repository are kept in memory, in ms. */
const STORED_LIFE_MS = 30_000;
const READS_AT_ONCE = 16;
/** Indexes are followed to this depth. */
const MAX_DEPTH = 4;

type TagsByDigest = ReadonlyMap<Digest, ReadonlySet<Tag>>;

/** @param stores stores with manifests, in the order of reading; the last one has the tags. If
 *  empty, only recorded tags are known */
export function createKnownTags(stores: readonly Store[]): KnownTags {
  const tags = new LRUCache<string, Set<Tag>>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const parents = new LRUCache<string, Set<Digest>>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const stored = createExpiringCache<Repository, Promise<TagsByDigest>>({ max: REPOSITORIES_IN_MEMORY, ttl: STORED_LIFE_MS });

  function noteNamed(repository: Repository, digest: Digest, named: readonly { digest: Digest }[]): void {
    for (const { digest: child } of named) add(parents, `${repository}@${child}`, digest);
  }

  function recall(repository: Repository, digest: Digest, depth = 0): Tag[] {
    const key = `${repository}@${digest}`;
    const above = depth === MAX_DEPTH ? [] : [...(parents.get(key) ?? [])];
    return [...(tags.get(key) ?? []), ...above.flatMap((parent) => recall(repository, parent, depth + 1))];
  }

  return {
    noteTag: (repository, tag, digest) => add(tags, `${repository}@${digest}`, tag),
    noteManifest(repository, digest, bytes) {
      try {
        const { manifests, blobs } = parseManifest(bytes, '');
        noteNamed(repository, digest, [...manifests, ...blobs]);
      } catch {
        // Clients may understand manifests that this program cannot parse; their contents are
        // unknown.
      }
    },
    recall: (repository, digest) => recall(repository, digest),
    async find(repository, digest, signal) {
      const reading = stored.get(repository) ?? readStored(stores, repository, signal);
      stored.set(repository, reading);
      try {
        return [...new Set([...((await reading).get(digest) ?? []), ...recall(repository, digest)])];
      } catch (error) {
        if (stored.get(repository) === reading) stored.delete(repository);
        throw error;
      }
    },
  };
}

/** The recorded tags of a repository, by the digests that they lead to. */
async function readStored(stores: readonly Store[], repository: Repository, signal: AbortSignal): Promise<TagsByDigest> {
  const found = new Map<Digest, Set<Tag>>();
  const store = stores.at(-1);
  if (store === undefined) return found;
  const records = await readTags(store, { repositories: [repository], parallel: READS_AT_ONCE, signal });
  for (const [name, own] of records) await follow(name.slice(repository.length + 1) as Digest, own, 0);
  return found;

  async function follow(digest: Digest, own: readonly Tag[], depth: number): Promise<void> {
    const known = found.get(digest) ?? new Set<Tag>();
    found.set(digest, known);
    for (const tag of own) known.add(tag);
    if (depth === MAX_DEPTH) return;
    const content = await readFirst(stores, digest, signal);
    if (content === undefined) return;
    for (const blob of content.blobs) found.set(blob.digest, new Set([...(found.get(blob.digest) ?? []), ...own]));
    for (const manifest of content.manifests) await follow(manifest.digest, own, depth + 1);
  }
}

/** The manifest from the first store that has it. */
async function readFirst(stores: readonly Store[], digest: Digest, signal: AbortSignal) {
  for (const store of stores) {
    const content = await readManifest(store, digest, { signal });
    if (content !== undefined && content !== 'corrupt') return content;
  }
  return undefined;
}

function add<Value>(sets: LRUCache<string, Set<Value>>, key: string, value: Value): void {
  const set = sets.get(key);
  if (set === undefined) sets.set(key, new Set([value]));
  else set.add(value);
}
