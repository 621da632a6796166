import { isDigest, type Digest } from '../oci/digest.ts';

/** What is cached of one tag. Times are in ms on the monotonic clock (`TagMemory.now`), which survives corrections of the wall clock. */
export interface CachedTag {
  digest: Digest;
  /** When the upstream last confirmed it, or said that it is gone: on the monotonic clock, and as the record says it. */
  checkedAt: number;
  recordedAs: string;
  writtenAt: number;
  /** When its record was last read. */
  readAt: number;
  /** The upstream is not asked before this time, after a question that failed. */
  quietUntil: number;
  /** The upstream has refused its credentials since the last confirmation. */
  refused: boolean;
  /** When the upstream first said that the tag is gone (ISO 8601); undefined: it has not. */
  goneSince: string | undefined;
  /** It was put here by `cache import`, and the upstream has not moved it since. */
  imported: boolean;
}

/** How far ahead of this machine's clock the record of another one may be, in ms. */
const CLOCK_TOLERANCE_MS = 5000;

/** The tag that a record describes; undefined: there is no record, or it is damaged. `now`: on the monotonic clock. */
export function parseTagRecord(record: unknown, { now, tagTtl }: { now: number; tagTtl: number }): CachedTag | undefined {
  if (typeof record !== 'object' || record === null) return undefined;
  const { digest, checkedAt: written, refused, goneSince, imported } = record as Record<string, unknown>;
  if (typeof digest !== 'string' || !isDigest(digest)) return undefined;
  const recordedAs = typeof written === 'string' ? written : new Date(0).toISOString();
  const age = Date.now() - (Date.parse(recordedAs) || 0);
  // A record of the future was written under a wrong clock: it says nothing of its age, so the upstream is asked.
  const checkedAt = now - (age < -CLOCK_TOLERANCE_MS ? tagTtl : Math.max(0, age));
  return {
    digest,
    checkedAt,
    recordedAs,
    writtenAt: checkedAt,
    readAt: now,
    quietUntil: -Infinity,
    refused: refused === true,
    goneSince: typeof goneSince === 'string' ? goneSince : undefined,
    imported: imported === true,
  };
}

/** What `parseTagRecord` reads. */
export function formatTagRecord({ digest, recordedAs, refused, goneSince, imported }: CachedTag): object {
  return {
    digest,
    checkedAt: recordedAs,
    ...(refused ? { refused } : {}),
    ...(goneSince === undefined ? {} : { goneSince }),
    ...(imported ? { imported } : {}),
  };
}
