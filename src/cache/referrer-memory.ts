import { LRUCache } from 'lru-cache';
import { singleFlight, type SingleFlight } from '../async/single-flight.ts';

/** The cached referrers of one subject. Times are in ms on the monotonic clock. */
export interface CachedList {
  index: ReferrerIndex;
  /** Bytes of the index as JSON. */
  size: number;
  /** When the upstream last returned the list: `checkedAt` on the monotonic clock, `recordedAs` as
   *  the record has it (ISO 8601). */
  checkedAt: number;
  recordedAs: string;
  /** -Infinity: the list has not been written. */
  writtenAt: number;
  /** After a failed request, the upstream is not asked again before this time. */
  quietUntil: number;
  /** The upstream has answered 401 or 403 since then. */
  refused: boolean;
  /** `cache import` stored the list, and the upstream has not listed anything since. */
  imported: boolean;
}

/** An image index, as the upstream lists it. */
export interface ReferrerIndex {
  manifests: readonly { digest?: string; artifactType?: string }[];
}

/** The referrers in memory, shared by all upstreams. */
export interface ReferrerMemory {
  cached: LRUCache<string, CachedList>;
  asking: SingleFlight<CachedList>;
  /** Digests that were listed as referrers, by `name@digest`: clients ask for their referrers
   *  next. */
  listed: LRUCache<string, true>;
  /** A clock that is never set back, in ms. */
  now(this: void): number;
}

/** Bytes of lists that stay in memory. */
const BYTES_IN_MEMORY = 16 * 2 ** 20;
/** A list may have a thousand pages. */
const ASKING_TIMEOUT_MS = 120_000;
/** Referrers whose own referrers are worth a record. */
export const LISTED = 20_000;
/** Memory that a list takes besides its index, in bytes. */
const OVERHEAD = 512;

export function createReferrerMemory(now: () => number = () => performance.now()): ReferrerMemory {
  const sizeCalculation = ({ size }: CachedList): number => size + OVERHEAD;
  return {
    cached: new LRUCache({ maxSize: BYTES_IN_MEMORY, sizeCalculation }),
    asking: singleFlight({ timeoutMs: ASKING_TIMEOUT_MS }),
    listed: new LRUCache({ maxSize: LISTED, sizeCalculation: () => 1 }),
    now,
  };
}
