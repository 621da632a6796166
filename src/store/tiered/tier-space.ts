export interface Room {
  /** Grows the reservation to `total` bytes; false: the blobs that must stay leave too little
   *  room. */
  grow(total: number): boolean;
  /** Releases the reservation. Call it right before writing the object, which then takes its
   *  place. */
  release(): void;
}

/** The space of the local tier: which blobs take it, which may be evicted, and what is reserved. */
export interface TierSpace {
  /** Size in bytes of the stored and reserved blobs. */
  used(this: void): number;
  has(key: string): boolean;
  /** The stored blobs, the least recently used first; after them those that must stay. */
  entries(): [key: string, size: number][];
  /** A blob is stored, or has been used. */
  add(key: string, size: number): void;
  forget(key: string): void;
  /** Protects a blob from eviction while it is read or written. */
  hold(key: string): void;
  letGo(key: string): void;
  pin(this: void, key: string): void;
  unpin(this: void, key: string): void;
  /** Evicts the least recently used blobs until the tier is within its limit. */
  evict(): void;
  reserve(this: void): Room;
}

export interface TierSpaceOptions {
  /** Bytes. */
  maxSize: number;
  /** Called with the number of bytes in use. */
  observe(this: void, bytes: number): void;
  /** Removes the file of a blob that is evicted. */
  remove(this: void, key: string): void;
}

export function createTierSpace({ maxSize, observe, remove }: TierSpaceOptions): TierSpace {
  /** Sizes by key, the least recently used first. */
  const evictable = new Map<string, number>();
  /** Sizes of the blobs that are pinned or held. They are in a separate map because `evict` cannot
   *  remove them. During an outage of S3, thousands of blobs may be pinned. */
  const staying = new Map<string, number>();
  const pinned = new Set<string>();
  /** How many reads and writes of each key are in progress. */
  const held = new Map<string, number>();
  let used = 0;
  let reserved = 0;

  const sizeOf = (key: string): number | undefined => evictable.get(key) ?? staying.get(key);
  const mustStay = (key: string): boolean => pinned.has(key) || held.has(key);

  /** Lists a blob as the most recently used one. */
  function place(key: string, size: number): void {
    evictable.delete(key);
    staying.delete(key);
    (mustStay(key) ? staying : evictable).set(key, size);
  }

  /** Call it when a blob is pinned or held, or no longer. */
  function moveIfNeeded(key: string): void {
    const size = sizeOf(key);
    if (size !== undefined && staying.has(key) !== mustStay(key)) place(key, size);
  }

  function forget(key: string): void {
    used -= sizeOf(key) ?? 0;
    evictable.delete(key);
    staying.delete(key);
    observe(used + reserved);
  }

  /** Evicts the least recently used blobs until `more` bytes fit. */
  function evict(more: number): boolean {
    for (const key of evictable.keys()) {
      if (used + reserved + more <= maxSize) return true;
      forget(key);
      remove(key);
    }
    return used + reserved + more <= maxSize;
  }

  return {
    used: () => used + reserved,
    has: (key) => sizeOf(key) !== undefined,
    entries: () => [...evictable, ...staying],
    add(key, size) {
      used += size - (sizeOf(key) ?? 0);
      place(key, size);
      observe(used + reserved);
    },
    forget,
    hold(key) {
      held.set(key, (held.get(key) ?? 0) + 1);
      moveIfNeeded(key);
    },
    letGo(key) {
      const left = (held.get(key) ?? 1) - 1;
      if (left > 0) held.set(key, left);
      else held.delete(key);
      moveIfNeeded(key);
      evict(0);
    },
    pin(key) {
      pinned.add(key);
      moveIfNeeded(key);
    },
    unpin(key) {
      pinned.delete(key);
      moveIfNeeded(key);
      evict(0);
    },
    evict: () => void evict(0),
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
  };
}
