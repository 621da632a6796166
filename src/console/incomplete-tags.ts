import type { Repository, Tag } from '../oci/reference.ts';
import type { StoredImages } from './inventory.ts';

/** The tags of each repository whose images are not completely stored: once for each listing. */
const known = new WeakMap<StoredImages, Map<Repository, Tag[]>>();

/** The tag whose image is being downloaded; null: it is not listed yet, or several may be meant. */
export function incompleteTagOf(stored: StoredImages | undefined, repository: Repository): Tag | null {
  if (stored === undefined) return null;
  const tags = known.get(stored) ?? incompleteTags(stored);
  known.set(stored, tags);
  const own = tags.get(repository) ?? [];
  return own.length === 1 ? (own[0] ?? null) : null;
}

function incompleteTags({ images }: StoredImages): Map<Repository, Tag[]> {
  const found = new Map<Repository, Tag[]>();
  for (const { repository, tag, complete } of images) {
    if (tag !== undefined && !complete) found.set(repository, [...(found.get(repository) ?? []), tag]);
  }
  return found;
}
