import { inParallel } from '../async/parallel.ts';
import { GONE, goneKey, keyOfGone } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import { parseTagRecord } from './cached-tag.ts';
import type { RecordStore } from './record-store.ts';
import type { TagMemory } from './tag-memory.ts';

/** The tags that upstreams have deleted and that are still served: in memory, and as markers in the
 *  store, so that a restart need not read the records of all tags. */
interface GoneTags {
  memory: Pick<TagMemory, 'gone'>;
  records: Pick<RecordStore, 'mark' | 'remove'>;
}

const READS_AT_ONCE = 8;

/** Call it when the upstream has deleted a tag that is still served. */
export function noteGone({ memory, records }: GoneTags, key: string): void {
  if (memory.gone.has(key)) return;
  memory.gone.add(key);
  records.mark(goneKey(key));
}

/** Call it when the upstream has the tag again, or the tag is no longer served. */
export function noteReturned({ memory, records }: GoneTags, key: string): void {
  if (memory.gone.delete(key)) records.remove(goneKey(key));
}

/** Reads the markers of earlier processes and other replicas. Removes those of tags that have been
 *  pruned or that upstream has again.
 *  @throws OciError UNAVAILABLE */
export async function loadGone({ memory, records }: { memory: TagMemory; records: RecordStore }, store: Store, signal: AbortSignal) {
  const found = new Set<string>();
  await inParallel(store.list(GONE, { signal }), READS_AT_ONCE, async (marker) => {
    const key = keyOfGone(marker.key);
    const tag = memory.cached.get(key) ?? parseTagRecord(await records.read(key, signal), { now: memory.now(), tagTtl: 0 });
    if (tag?.goneSince === undefined) records.remove(marker.key);
    else found.add(key);
  });
  for (const key of memory.gone) {
    const isKnown = memory.cached.get(key)?.goneSince !== undefined; // its marker may not have been written yet
    if (!found.has(key) && !isKnown) memory.gone.delete(key);
  }
  for (const key of found) memory.gone.add(key);
}
