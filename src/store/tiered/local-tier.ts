import { mapBody } from '../../io/body.ts';
import type { FilesystemStore } from '../filesystem/filesystem.ts';
import { BLOBS } from '../keys.ts';
import type { Store } from '../store.ts';
import { createTierSpace, type Room } from './tier-space.ts';

export interface LocalTier extends Store {
  /** Reserves room for a blob that is still being written. */
  reserve(this: void): Room;
  /** Protects an object from eviction, because it is stored nowhere else yet. */
  pin(key: string): void;
  unpin(key: string): void;
  /** Size in bytes of the stored and reserved blobs. */
  used(): number;
  /** Adds the blobs that a former process left, oldest as least recently used; until then they do
   *  not count.
   *  @throws OciError UNAVAILABLE */
  takeStock(signal: AbortSignal): Promise<void>;
}

const EVICT_TIMEOUT_MS = 30_000;

/** A bounded tier of blobs on disk: the least recently used are evicted first, but never a blob
 *  that is pinned, being read or being written. (A file that is removed while it is read would
 *  still occupy the disk.) `observe` is called with the number of bytes in use. */
export function localTier(store: FilesystemStore, maxSize: number, observe: (bytes: number) => void): LocalTier {
  const space = createTierSpace({
    maxSize,
    observe,
    remove: (key) => void store.remove(key, { signal: AbortSignal.timeout(EVICT_TIMEOUT_MS) }).catch(() => undefined), // found again at the next start
  });

  return {
    ...store,
    used: space.used,
    pin: space.pin,
    unpin: space.unpin,
    reserve: space.reserve,
    async takeStock(signal) {
      const found: { key: string; size: number; modified: Date }[] = [];
      for await (const object of store.list(BLOBS, { signal })) if (!space.has(object.key)) found.push(object);
      found.sort((a, b) => a.modified.getTime() - b.modified.getTime());
      const newer = space.entries();
      for (const { key, size } of found) if (!space.has(key)) space.add(key, size);
      for (const [key, size] of newer) if (space.has(key)) space.add(key, size);
      space.evict();
    },
    async read(key, context) {
      space.hold(key);
      let content: Awaited<ReturnType<Store['read']>>;
      try {
        content = await store.read(key, context);
      } catch (error) {
        space.letGo(key);
        throw error;
      }
      if (content === undefined) {
        space.forget(key);
        space.letGo(key);
        return undefined;
      }
      if (space.has(key)) space.add(key, content.size);
      return { ...content, body: mapBody(content.body, { onClose: () => space.letGo(key) }) };
    },
    async write(key, source, context) {
      space.hold(key);
      const isNew = !space.has(key);
      space.add(key, source.size);
      try {
        await store.write(key, source, context);
      } catch (error) {
        if (isNew) space.forget(key);
        throw error;
      } finally {
        setImmediate(() => space.letGo(key)); // its writer can still pin it
      }
    },
    async remove(key, context) {
      await store.remove(key, context);
      space.forget(key);
    },
  };
}
