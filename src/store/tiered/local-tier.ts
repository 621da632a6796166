import { mapBody } from '../../io/body.ts';
import type { FilesystemStore } from '../filesystem/filesystem.ts';
import { BLOBS } from '../keys.ts';
import type { Store } from '../store.ts';

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
export interface Room {
  /** Grows the reservation to `total` bytes; false: the blobs that must stay leave too little
   *  room. */
  grow(total: number): boolean;
  /** Releases the reservation. Call it right before writing the object, which then takes its
   *  place. */
  release(): void;
}

/** A bounded tier of blobs on disk: the least recently used are evicted first, but never a blob
 *  that is pinned, being read or being written. (A file that is removed while it is read would
 *  still occupy the disk.) `observe` is called with the number of bytes in use. */
export function localTier(store: FilesystemStore, maxSize: number, observe: (bytes: number) => void): LocalTier {
  /** Least recently used first. */
  const sizes = new Map<string, number>();
  const pinned = new Set<string>();
  /** How many reads and writes of each key are in progress. */
  const held = new Map<string, number>();
  let used = 0;
  let reserved = 0;

  function add(key: string, size: number): void {
    used += size - (sizes.get(key) ?? 0);
    sizes.delete(key);
    sizes.set(key, size);
    observe(used + reserved);
  }

  function forget(key: string): void {
    used -= sizes.get(key) ?? 0;
    sizes.delete(key);
    observe(used + reserved);
  }

  function hold(key: string): void {
    held.set(key, (held.get(key) ?? 0) + 1);
  }

  function letGo(key: string): void {
    const left = (held.get(key) ?? 1) - 1;
    if (left > 0) held.set(key, left);
    else held.delete(key);
    evict(0);
  }

  /** Evicts the least recently used blobs until `more` bytes fit. */
  function evict(more: number): boolean {
    for (const key of sizes.keys()) {
      if (used + reserved + more <= maxSize) return true;
      if (pinned.has(key) || held.has(key)) continue;
      forget(key);
      store.remove(key, { signal: AbortSignal.timeout(30_000) }).catch(() => undefined); // found again at the next start
    }
    return used + reserved + more <= maxSize;
  }

  return {
    ...store,
    used: () => used + reserved,
    pin: (key) => void pinned.add(key),
    unpin(key) {
      pinned.delete(key);
      evict(0);
    },
    async takeStock(signal) {
      const found: { key: string; size: number; modified: Date }[] = [];
      for await (const object of store.list(BLOBS, { signal })) if (!sizes.has(object.key)) found.push(object);
      found.sort((a, b) => a.modified.getTime() - b.modified.getTime());
      const newer = [...sizes];
      for (const { key, size } of found) if (!sizes.has(key)) add(key, size);
      for (const [key, size] of newer) if (sizes.has(key)) add(key, size);
      evict(0);
    },
    reserve() {
      let own = 0;
      return {
        grow(total) {
          if (total <= own) return true;
          if (!evict(total - own)) return false;
          reserved += total - own;
          own = total;
          observe(used + reserved);
          return true;
        },
        release() {
          reserved -= own;
          own = 0;
          observe(used + reserved);
        },
      };
    },
    async read(key, context) {
      hold(key);
      let content: Awaited<ReturnType<Store['read']>>;
      try {
        content = await store.read(key, context);
      } catch (error) {
        letGo(key);
        throw error;
      }
      if (content === undefined) {
        forget(key);
        letGo(key);
        return undefined;
      }
      if (sizes.has(key)) add(key, content.size);
      return { ...content, body: mapBody(content.body, { onClose: () => letGo(key) }) };
    },
    async write(key, source, context) {
      hold(key);
      const before = sizes.get(key);
      add(key, source.size);
      try {
        await store.write(key, source, context);
      } catch (error) {
        if (before === undefined) forget(key);
        throw error;
      } finally {
        setImmediate(() => letGo(key)); // its writer can still pin it
      }
    },
    async remove(key, context) {
      await store.remove(key, context);
      forget(key);
    },
  };
}
