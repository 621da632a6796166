import { LRUCache } from 'lru-cache';
import { abandonUnwanted, type Callers } from '../async/callers.ts';
import { upstreamNameOf } from '../oci/capability.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError, type OciError } from '../oci/error.ts';
import type { Manifest } from '../oci/registry.ts';
import { parseRepositoryKey } from '../store/keys.ts';
import type { CachedTag } from './cached-tag.ts';

/** The upstream's answer about a tag. */
export interface TagAnswer {
  digest: Digest;
  /** The tag's manifest, if the upstream was asked for it. */
  manifest?: Manifest;
  /** The upstream has deleted the tag; `digest` is its last known digest. */
  gone?: true;
}

/** A running request to an upstream about a tag. */
export interface Asking {
  /** Resolves when the upstream has answered. */
  answered: Promise<void>;
  /** Resolves when the answer has been cached. */
  done: Promise<TagAnswer>;
  callers: Callers;
  since: number;
}

/** The tags in memory, by their keys in the store; shared by all upstreams. */
export interface TagMemory {
  cached: LRUCache<string, CachedTag>;
  absent: LRUCache<string, { until: number; error: OciError }>;
  asking: Map<string, Asking>;
  /** The keys of the tags that upstream has deleted and that are still served (gone-tags.ts). */
  gone: Set<string>;
  /** When each upstream last failed to answer, by its name. */
  unreachable: LRUCache<string, number>;
  /** Counts the callers of each request to upstream. */
  createCallers: ReturnType<typeof abandonUnwanted>;
  /** A clock that is never set back, in ms. */
  now(this: void): number;
}

/** How long a request to upstream continues after its last caller has left, in ms. */
const LINGER_MS = 1000;
/** How long an upstream counts as unreachable after a request without an answer, in ms. Meanwhile,
 *  pulls of imported tags do not wait for it. */
const UNREACHABLE_MS = 600_000;
/** Upstreams that are remembered as unreachable. */
const MAX_UNREACHABLE = 1000;
/** Tags, each a few hundred bytes. */
const IN_MEMORY = 20_000;

export function createTagMemory(now: () => number = () => performance.now()): TagMemory {
  const limit = { maxSize: IN_MEMORY, sizeCalculation: () => 1 };
  const unreachable = new LRUCache<string, number>({ max: MAX_UNREACHABLE });
  const createCallers = abandonUnwanted({ lingerMs: LINGER_MS });
  return { cached: new LRUCache(limit), absent: new LRUCache(limit), gone: new Set(), asking: new Map(), createCallers, unreachable, now };
}

/** Notes that the upstream of a tag has answered, or why it has not. */
export function noteReachability({ unreachable, now }: TagMemory, key: string, error?: unknown): void {
  const hasAnswered = error === undefined || (isOciError(error) && error.code !== 'UNAVAILABLE');
  if (hasAnswered) unreachable.delete(upstreamOf(key));
  else unreachable.set(upstreamOf(key), now());
}

/** Whether the upstream of a tag has recently failed to answer, and has not answered since. */
export function isUnreachable({ unreachable, now }: TagMemory, key: string): boolean {
  return now() - (unreachable.get(upstreamOf(key)) ?? -Infinity) < UNREACHABLE_MS;
}

/** How many of its tags each upstream has deleted, by the upstream's name. An upstream without any
 *  is listed with 0 once one of its tags has been pulled. */
export function countGone({ cached, gone }: TagMemory): Map<string, number> {
  const counts = new Map<string, number>();
  for (const key of cached.keys()) counts.set(upstreamOf(key), 0);
  for (const key of gone) counts.set(upstreamOf(key), (counts.get(upstreamOf(key)) ?? 0) + 1);
  return counts;
}

function upstreamOf(key: string): string {
  const repository = parseRepositoryKey(key)?.repository;
  return repository === undefined ? '' : upstreamNameOf(repository);
}
