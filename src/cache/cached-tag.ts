import { isDigest, type Digest } from '../oci/digest.ts';

/** The cached state of one tag. Times are in ms on the monotonic clock (`TagMemory.now`), which
 *  survives corrections of the wall clock. */
export interface CachedTag {
  digest: Digest;
  /** When the upstream last confirmed the tag or reported it deleted: `checkedAt` on the monotonic
   *  clock, `recordedAs` as the record has it (ISO 8601). */
  checkedAt: number;
  recordedAs: string;
  writtenAt: number;
  /** When the tag's record was last read. */
  readAt: number;
  /** After a failed request, the upstream is not asked again before this time. */
  quietUntil: number;
  /** The upstream has answered 401 or 403 since it last confirmed the tag. */
  refused: boolean;
  /** When the upstream first reported the tag deleted (ISO 8601); undefined: it has not. */
  goneSince: string | undefined;
  /** `cache import` stored the tag, and the upstream has not moved it since. */
  imported: boolean;
}

/** How far a record of another machine may be ahead of this machine's clock, in ms. */
const CLOCK_TOLERANCE_MS = 5000;

/** The tag that a record describes; undefined: there is no record, or it is damaged. `now`: on the
 *  monotonic clock. */
export function parseTagRecord(record: unknown, { now, tagTtl }: { now: number; tagTtl: number }): CachedTag | undefined {
  if (typeof record !== 'object' || record === null) return undefined;
  const { digest, checkedAt: written, refused, goneSince, imported } = record as Record<string, unknown>;
  if (typeof digest !== 'string' || !isDigest(digest)) return undefined;
  const recordedAs = typeof written === 'string' ? written : new Date(0).toISOString();
  const age = Date.now() - (Date.parse(recordedAs) || 0);
  // A record from the future was written under a wrong clock: its age is unknown, so upstream is
  // asked.
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

/** The record of a tag, as `parseTagRecord` reads it. */
export function formatTagRecord({ digest, recordedAs, refused, goneSince, imported }: CachedTag): object {
  return {
    digest,
    checkedAt: recordedAs,
    ...(refused ? { refused } : {}),
    ...(goneSince === undefined ? {} : { goneSince }),
    ...(imported ? { imported } : {}),
  };
}
