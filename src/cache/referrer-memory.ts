import { LRUCache } from 'lru-cache';
import { singleFlight, type SingleFlight } from '../async/single-flight.ts';

/** What is cached of the referrers of one subject. Times are in ms on the monotonic clock. */
export interface CachedList {
  index: ReferrerIndex;
  /** Bytes of the index as JSON. */
  size: number;
  /** When the upstream last listed it: on the monotonic clock, and as the record says it. */
  checkedAt: number;
  recordedAs: string;
  /** -Infinity: it has not been written. */
  writtenAt: number;
  /** The upstream is not asked before this time, after a question that failed. */
  quietUntil: number;
  /** The upstream has refused its credentials since. */
  refused: boolean;
}

/** An image index, as the upstream lists it. */
export interface ReferrerIndex {
  manifests: readonly { digest?: string; artifactType?: string }[];
}

/** What is known of referrers, shared by all that list them. */
export interface ReferrerMemory {
  cached: LRUCache<string, CachedList>;
  asking: SingleFlight<CachedList>;
  /** What has been listed as a referrer, by `name@digest`: clients look for its own referrers next. */
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
/** What a list takes in memory beside its index, in bytes. */
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
