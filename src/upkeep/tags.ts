import { readAll } from '../io/body.ts';
import { withoutCapability } from '../oci/capability.ts';
import { isDigest, type Digest } from '../oci/digest.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import { parseRepositoryKey, REPOSITORIES, tagKey } from '../store/keys.ts';
import type { Store, StoreContext, StoredContent } from '../store/store.ts';
import type { Image } from './inventory.ts';
import { inParallel } from '../async/parallel.ts';

/** By `repository@digest`. */
export type TagsByImage = ReadonlyMap<string, Tag[]>;

/** In bytes; a larger object is not a tag record. */
const MAX_RECORD_SIZE = 65_536;

export interface ReadTagsOptions {
  /** Only the tags of these repositories. */
  repositories?: Iterable<Repository>;
  /** The number of concurrent calls to the store. */
  parallel: number;
  signal: AbortSignal;
  /** Called with each tag that its upstream has deleted, and when that was first noticed (ISO
   *  8601). */
  gone?(this: void, record: { repository: Repository; tag: Tag }, since: string): void;
}

/** The content of a tag record. */
export interface TagContent {
  digest: Digest;
  goneSince: string | undefined;
}

/** Reads the digests of the tags in the store, one read each. @throws OciError UNAVAILABLE */
export async function readTags(store: Store, { repositories, parallel, signal, gone }: ReadTagsOptions): Promise<TagsByImage> {
  const context = { signal };
  const tags = new Map<string, Tag[]>();
  const prefixes = repositories === undefined ? [REPOSITORIES] : Array.from(repositories, (one) => tagKey(one, '' as Tag));
  async function* records() {
    for (const prefix of prefixes) {
      for await (const { key } of store.list(prefix, context)) {
        const record = parseRepositoryKey(key);
        if (record !== undefined && 'tag' in record) yield record;
      }
    }
  }
  await inParallel(records(), parallel, async (record) => {
    const content = await readTag(store, record, context);
    if (content?.goneSince !== undefined) gone?.(record, content.goneSince);
    const name = `${record.repository}@${content?.digest}`;
    tags.set(name, [...(tags.get(name) ?? []), record.tag]);
  });
  return tags;
}

/** How often a record that was listed is read before it counts as removed. */
const READS = 3;

/** Reads a tag record. Undefined: it does not exist, or is damaged. @throws OciError UNAVAILABLE */
export async function readTag(
  store: Store,
  { repository, tag }: { repository: Repository; tag: Tag },
  context: StoreContext,
): Promise<TagContent | undefined> {
  let found: StoredContent | undefined;
  for (let read = 0; read < READS && found === undefined; read++) found = await store.read(tagKey(repository, tag), context);
  if (found === undefined) return undefined;
  const bytes = await readAll(found.body, MAX_RECORD_SIZE);
  try {
    const { digest, goneSince } = JSON.parse(String(bytes)) as { digest?: unknown; goneSince?: unknown };
    if (typeof digest !== 'string' || !isDigest(digest)) return undefined;
    return { digest, goneSince: typeof goneSince === 'string' ? goneSince : undefined };
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** The names of an image: `repository:tag` for each of its tags, `repository@digest` if it has
 *  none. Names of private images are without the ids of pull secrets. */
export function namesOf({ digest, places }: Image, tags: TagsByImage): string[] {
  const names = places.flatMap(({ repository }) => {
    const own = tags.get(`${repository}@${digest}`);
    const name = withoutCapability(repository);
    return own === undefined ? [`${name}@${digest}`] : own.map((tag) => `${name}:${tag}`);
  });
  return [...new Set(names)];
}
