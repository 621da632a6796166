import type { Digest } from '../oci/digest.ts';
import { isOciError, type OciError } from '../oci/error.ts';
import { parseRepositoryKey } from '../store/keys.ts';
import type { Log } from '../telemetry/log.ts';
import { formatTagRecord, parseTagRecord, type CachedTag } from './cached-tag.ts';
import { REWRITE_AFTER_MS, type FreshnessPolicy } from './freshness.ts';
import type { RecordStore } from './record-store.ts';
import { noteGone, noteReturned } from './gone-tags.ts';
import { noteReachability, type TagMemory } from './tag-memory.ts';

/** The cached tags of one upstream: in memory, and as records in the store. */
export interface TagCache {
  memory: TagMemory;
  records: RecordStore;
  policy: FreshnessPolicy;
  log: Log;
}

/** When an upstream was asked: on the monotonic clock, and as the record has it (ISO 8601). */
export interface AskedAt {
  asked: number;
  recordedAs: string;
}

/** How often the record of a tag is read again while the upstream cannot answer, in ms. */
const REREAD_AFTER_MS = 250;
/** For how long an upstream's Retry-After is honoured, in ms. */
const MAX_QUIET_MS = 3_600_000;

/** Finds a tag in memory, or reads its record. */
export async function findTag(cache: TagCache, key: string, signal: AbortSignal): Promise<CachedTag | undefined> {
  const { cached } = cache.memory;
  const remembered = cached.get(key);
  if (remembered !== undefined) return remembered;
  const found = await readTag(cache, key, signal);
  if (found === undefined) return undefined;
  const meanwhile = cached.get(key); // set if the upstream was asked while the record was being read
  if (meanwhile === undefined) cached.set(key, found);
  return meanwhile ?? found;
}

/** Returns the tag in memory, or its record if `cache import` has written a newer one. */
export async function findLatestTag(cache: TagCache, key: string, signal: AbortSignal): Promise<CachedTag | undefined> {
  const { cached, now } = cache.memory;
  const before = cached.get(key);
  if (before !== undefined && now() - before.readAt < REREAD_AFTER_MS) return before;
  const found = await readTag(cache, key, signal);
  const meanwhile = cached.get(key);
  const isNewer = meanwhile === undefined || Date.parse(found?.recordedAs ?? '') > Date.parse(meanwhile.recordedAs);
  const latest = found?.imported === true && isNewer ? found : meanwhile && { ...meanwhile, readAt: now() };
  if (latest !== undefined) cached.set(key, latest);
  return latest;
}

async function readTag({ memory, records, policy }: TagCache, key: string, signal: AbortSignal): Promise<CachedTag | undefined> {
  return parseTagRecord(await records.read(key, signal), { now: memory.now(), tagTtl: policy.tagTtl });
}

/** The upstream has confirmed or moved a tag. */
export function confirmTag({ memory, records }: TagCache, key: string, { digest, asked, recordedAs }: AskedAt & { digest: Digest }): void {
  const { cached, absent } = memory;
  const before = cached.get(key);
  const isSame = before?.digest === digest;
  const isWritten = isSame && !before.refused && before.goneSince === undefined && asked - before.writtenAt < REWRITE_AFTER_MS;
  const writtenAt = isWritten ? before.writtenAt : asked;
  const state = { quietUntil: -Infinity, refused: false, goneSince: undefined, imported: isSame && before.imported };
  const tag = { digest, checkedAt: asked, recordedAs, writtenAt, readAt: asked, ...state };
  noteReachability(memory, key);
  cached.set(key, tag);
  absent.delete(key);
  if (!isWritten) records.put(key, formatTagRecord(tag));
  noteReturned({ memory, records }, key);
}

/** The upstream has deleted a tag that is served nevertheless. */
export function keepDeletedTag(
  { memory, records, log }: TagCache,
  key: string,
  { before, asked, recordedAs }: AskedAt & { before: CachedTag },
): void {
  const isWritten = before.goneSince !== undefined && asked - before.writtenAt < REWRITE_AFTER_MS;
  const writtenAt = isWritten ? before.writtenAt : asked;
  const goneSince = before.goneSince ?? recordedAs;
  const tag = { ...before, checkedAt: asked, recordedAs, writtenAt, quietUntil: -Infinity, refused: false, goneSince };
  memory.cached.set(key, tag);
  if (!isWritten) records.put(key, formatTagRecord(tag));
  noteGone({ memory, records }, key);
  const entry = { event: 'tag-gone', ...parseRepositoryKey(key), digest: before.digest, goneSince };
  log.warn(entry, 'upstream has deleted a tag: serving the cached image for as long as it is kept');
}

/** The upstream has deleted a tag, or never had it. */
export function forgetTag({ memory, records, policy }: TagCache, key: string, error: OciError): void {
  memory.absent.set(key, { until: memory.now() + policy.negativeTtl, error });
  if (memory.cached.delete(key)) records.remove(key);
  noteReturned({ memory, records }, key);
}

/** The upstream could not answer: it is not asked again for a while. */
export function postponeTag({ memory, records, policy }: TagCache, key: string, { asked, error }: { asked: number; error: unknown }): void {
  noteReachability(memory, key, error);
  const before = memory.cached.get(key);
  if (before === undefined) return;
  const retryAfter = 1000 * (isOciError(error) ? (error.retryAfter ?? 0) : 0);
  const quietUntil = asked + Math.max(policy.tagTtl, Math.min(retryAfter, MAX_QUIET_MS));
  const refused = before.refused || isOciError(error, 'UNAUTHORIZED', 'DENIED'); // until the upstream confirms the tag again
  const tag = { ...before, quietUntil, refused };
  memory.cached.set(key, tag);
  if (refused !== before.refused) records.put(key, formatTagRecord(tag)); // the refusal must survive a restart
}
