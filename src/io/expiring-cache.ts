import { LRUCache } from 'lru-cache';

/** A bounded cache whose entries expire after `ttl` milliseconds, their own or the cache's. It
 *  reads the clock at each access. By default, LRUCache remembers the time for a millisecond by a
 *  timer, which wakes the event loop and costs a busy server more than many accesses. */
export function createExpiringCache<Key extends string, Value extends object | number | string | true>(
  options: LRUCache.Options<Key, Value, unknown>,
): LRUCache<Key, Value> {
  return new LRUCache<Key, Value>({ ...options, ttlResolution: 0 });
}
