import type { Store } from './store.ts';
import type { FilesystemStore } from './filesystem.ts';

export interface LocalTier extends Store {
  /** Room for something that is still being written. */
  reserve(this: void): Room;
  /** Keeps an object from being evicted: it is nowhere else yet. */
  pin(key: string): void;
  unpin(key: string): void;
  /** Bytes, of what is here and what is reserved. */
  used(): number;
}
export interface Room {
  /** Asks for `total` bytes; false: what is here must stay, and leaves not enough. */
  grow(total: number): boolean;
  release(): void;
}

/** A bounded tier of blobs on disk: the least recently used leave first, never what is pinned. What is being read may leave: its
 *  readers have it open. What a process before this one left counts by its age. */
export async function localTier(store: FilesystemStore, maxSize: number, signal: AbortSignal): Promise<LocalTier> {
  /** Least recently used first. */
  const sizes = new Map<string, number>();
  const pinned = new Set<string>();
  let used = 0;
  let reserved = 0;

  const found: { key: string; size: number; modified: Date }[] = [];
  for await (const object of store.list('v1/blobs/', { signal })) found.push(object);
  found.sort((a, b) => a.modified.getTime() - b.modified.getTime());
  for (const { key, size } of found) add(key, size);
  evict(0);

  function add(key: string, size: number): void {
    used += size - (sizes.get(key) ?? 0);
    sizes.delete(key);
    sizes.set(key, size);
  }

  function forget(key: string): void {
    used -= sizes.get(key) ?? 0;
    sizes.delete(key);
  }

  /** Removes what is oldest until `more` bytes fit. */
  function evict(more: number): boolean {
    for (const key of sizes.keys()) {
      if (used + reserved + more <= maxSize) return true;
      if (pinned.has(key)) continue;
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
    reserve() {
      let held = 0;
      return {
        grow(total) {
          if (total <= held) return true;
          if (!evict(total - held)) return false;
          reserved += total - held;
          held = total;
          return true;
        },
        release() {
          reserved -= held;
          held = 0;
        },
      };
    },
    async read(key, context) {
      const content = await store.read(key, context);
      if (content === undefined) forget(key);
      else if (sizes.has(key)) add(key, content.size);
      return content;
    },
    async write(key, source, context) {
      await store.write(key, source, context);
      add(key, source.size);
      evict(0);
    },
    async remove(key, context) {
      await store.remove(key, context);
      forget(key);
    },
  };
}
