import { LRUCache } from 'lru-cache';
import { abandonUnwanted, type Callers } from '../async/callers.ts';
import { raceAbort } from '../async/race-abort.ts';
import type { Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import type { Manifest } from '../oci/registry.ts';
import { parseRepositoryKey, REPOSITORIES, tagKey } from '../store/keys.ts';
import type { Log } from '../telemetry/log.ts';
import type { RateLimit } from '../upstream/rate-limit.ts';
import { formatTagRecord, parseTagRecord, type CachedTag } from './cached-tag.ts';
import type { RecordStore } from './record-store.ts';

export interface TagPolicy {
  /** Milliseconds, all three. */
  tagTtl: number;
  staleFor: number;
  negativeTtl: number;
  /** What happens to a cached tag that the upstream has deleted. forget: it is deleted here too.
   *  serve: it is served as before, for as long as its image is kept. */
  onDeleted: 'forget' | 'serve';
  /** Whether credentials are configured for a repository: the upstream's 401 or 403 may then mean
   *  that access has been revoked. */
  credentialed(repository: Repository): boolean;
  /** The upstream's rate limit. */
  rateLimit: Pick<RateLimit, 'blockedUntil' | 'countsPulls'>;
}

/** How long a request for a cached tag waits for the upstream's answer, in ms. */
export const ANSWER_TIMEOUT_MS = 2000;
/** How long a request to upstream continues after its last caller has left, in ms. */
const LINGER_MS = 1000;
/** How long a cached tag is served after the upstream has refused its credentials, counted from its last confirmation, in ms. */
export const REFUSED_LIFE_MS = 3_600_000;
/** The record of an unchanged tag is written again after this long, in ms: tags expire after days,
 *  and writes cost money. */
export const REWRITE_AFTER_MS = 3_600_000;
/** For how long an upstream's Retry-After is honoured, in ms. */
const MAX_QUIET_MS = 3_600_000;
/** How long an upstream counts as unreachable after a request without an answer, in ms. Meanwhile,
 *  pulls of imported tags do not wait for it. */
const UNREACHABLE_MS = 600_000;
/** How often the record of a tag is read again while the upstream cannot answer, in ms. */
const REREAD_AFTER_MS = 250;
/** Upstreams that are remembered as unreachable. */
const MAX_UNREACHABLE = 1000;
/** Tags, each a few hundred bytes. */
const IN_MEMORY = 20_000;

/** The upstream's answer about a tag. */
export interface TagAnswer {
  digest: Digest;
  /** The tag's manifest, if the upstream was asked for it. */
  manifest?: Manifest;
  /** The upstream has deleted the tag; `digest` is its last known digest. */
  gone?: true;
}

interface Asking {
  /** Resolves when the upstream has answered. */
  answered: Promise<void>;
  /** Resolves when the answer has been cached. */
  done: Promise<TagAnswer>;
  callers: Callers;
  since: number;
}

interface RefreshOptions {
  /** Called when the upstream has answered. */
  answered(this: void): void;
  signal: AbortSignal;
}

/** How the upstream is asked about one tag. */
export interface Question {
  /** Resolves the tag upstream. `known`: a digest is cached, so HEAD is enough.
   *  @throws OciError MANIFEST_UNKNOWN: the upstream itself says that there is no such tag */
  ask(known: boolean, signal: AbortSignal): Promise<TagAnswer>;
  /** Fetches the manifest of a tag that has moved; until then, the previous manifest is served. */
  bring(digest: Digest, signal: AbortSignal): Promise<void>;
  /** Whether the store still has the manifest. True if the store cannot be asked. */
  isKept(digest: Digest): Promise<boolean>;
}

export interface Tags {
  /** The digest of a tag that is in memory and was confirmed within tagTtl. */
  fresh(repository: Repository, tag: Tag): Digest | undefined;
  /** Resolves a tag. A cached tag is answered within ANSWER_TIMEOUT_MS, or, if it has moved, once
   *  its new manifest has been fetched.
   *  @throws OciError as `question` does, if no cached digest may be served */
  resolve(repository: Repository, tag: Tag, question: Question, signal: AbortSignal): Promise<ResolvedTag>;
}

export interface ResolvedTag extends TagAnswer {
  /** The upstream could not confirm the tag. */
  stale: boolean;
}

/** The tags in memory, shared by all upstreams. */
export interface TagMemory {
  cached: LRUCache<string, CachedTag>;
  absent: LRUCache<string, { until: number; error: OciError }>;
  asking: Map<string, Asking>;
  /** When each upstream last failed to answer, by its name. */
  unreachable: LRUCache<string, number>;
  /** Counts the callers of each request to upstream. */
  createCallers: ReturnType<typeof abandonUnwanted>;
  /** A clock that is never set back, in ms. */
  now(this: void): number;
}

export function createTagMemory(now: () => number = () => performance.now()): TagMemory {
  const limit = { maxSize: IN_MEMORY, sizeCalculation: () => 1 };
  const unreachable = new LRUCache<string, number>({ max: MAX_UNREACHABLE });
  const createCallers = abandonUnwanted({ lingerMs: LINGER_MS });
  return { cached: new LRUCache(limit), absent: new LRUCache(limit), asking: new Map(), createCallers, unreachable, now };
}

/** Counts the tags in memory that their upstream has deleted, by the upstream's name. */
export function countGone({ cached }: TagMemory): Map<string, number> {
  const counts = new Map<string, number>();
  for (const [key, { goneSince }] of cached.entries()) {
    const upstream = upstreamOf(key);
    counts.set(upstream, (counts.get(upstream) ?? 0) + (goneSince === undefined ? 0 : 1));
  }
  return counts;
}

function upstreamOf(key: string): string {
  return key.slice(REPOSITORIES.length, key.indexOf('/', REPOSITORIES.length));
}

/** Resolves tags. The upstream is asked for each tag at most once per tagTtl; when it cannot
 *  answer, the cached tag is served (promise 8). */
export function createTags(records: RecordStore, policy: TagPolicy, { log, memory }: { log: Log; memory: TagMemory }): Tags {
  const { cached, absent, asking, createCallers, unreachable, now } = memory;

  async function find(key: string, signal: AbortSignal): Promise<CachedTag | undefined> {
    const remembered = cached.get(key);
    if (remembered !== undefined) return remembered;
    const found = await read(key, signal);
    if (found === undefined) return undefined;
    const meanwhile = cached.get(key);
    if (meanwhile !== undefined) return meanwhile; // the upstream was asked while the record was being read
    cached.set(key, found);
    return found;
  }

  async function read(key: string, signal: AbortSignal): Promise<CachedTag | undefined> {
    return parseTagRecord(await records.read(key, signal), { now: now(), tagTtl: policy.tagTtl });
  }

  /** Returns the tag in memory, or its record if `cache import` has written a newer one. */
  async function findLatest(key: string, signal: AbortSignal): Promise<CachedTag | undefined> {
    const before = cached.get(key);
    if (before !== undefined && now() - before.readAt < REREAD_AFTER_MS) return before;
    const found = await read(key, signal);
    const meanwhile = cached.get(key);
    const isNewer = meanwhile === undefined || Date.parse(found?.recordedAs ?? '') > Date.parse(meanwhile.recordedAs);
    const latest = found?.imported === true && isNewer ? found : meanwhile && { ...meanwhile, readAt: now() };
    if (latest !== undefined) cached.set(key, latest);
    return latest;
  }

  function write(key: string, tag: CachedTag): void {
    records.put(key, formatTagRecord(tag));
  }

  /** How long after its last confirmation a tag may be served, in ms. */
  function lifeOf({ refused, goneSince, imported }: CachedTag, repository: Repository): number {
    if (imported) return Infinity;
    const isRefused = refused && policy.credentialed(repository);
    if (goneSince !== undefined && policy.onDeleted === 'serve' && !isRefused) return Infinity;
    return isRefused ? Math.min(REFUSED_LIFE_MS, policy.staleFor) : policy.staleFor;
  }

  async function refresh(key: string, question: Question, { answered, signal }: RefreshOptions): Promise<TagAnswer> {
    const asked = now();
    const checkedAt = new Date();
    try {
      const answer = await question.ask(cached.get(key) !== undefined, signal);
      answered();
      if ((cached.get(key)?.digest ?? answer.digest) !== answer.digest && answer.manifest === undefined)
        await bring(question, answer.digest, signal);
      const before = cached.get(key);
      if (before !== undefined && before.checkedAt > asked) return { digest: before.digest }; // a later request was answered first
      confirm(key, answer.digest, { asked, recordedAs: checkedAt.toISOString() });
      return answer;
    } catch (error) {
      if (signal.aborted) throw error; // an aborted request says nothing about the upstream
      const latest = cached.has(key) ? await findLatest(key, AbortSignal.timeout(ANSWER_TIMEOUT_MS)) : undefined;
      if (!isAbsent(error)) {
        postpone(key, error, asked);
        throw error;
      }
      unreachable.delete(upstreamOf(key));
      const isServed = latest !== undefined && (latest.imported || policy.onDeleted === 'serve') && (await question.isKept(latest.digest));
      if (!isServed) {
        forget(key, error);
        throw error;
      }
      serveGone(key, latest, { asked, recordedAs: checkedAt.toISOString() });
      return { digest: latest.digest, gone: true };
    }
  }

  /** Keeps a tag that the upstream has deleted. */
  function serveGone(key: string, before: CachedTag, { asked, recordedAs }: { asked: number; recordedAs: string }): void {
    const isWritten = before.goneSince !== undefined && asked - before.writtenAt < REWRITE_AFTER_MS;
    const writtenAt = isWritten ? before.writtenAt : asked;
    const goneSince = before.goneSince ?? recordedAs;
    const tag = { ...before, checkedAt: asked, recordedAs, writtenAt, quietUntil: -Infinity, refused: false, goneSince };
    cached.set(key, tag);
    if (!isWritten) write(key, tag);
    const entry = { event: 'tag-gone', ...parseRepositoryKey(key), digest: before.digest, goneSince };
    log.warn(entry, 'upstream has deleted a tag: serving the cached image for as long as it is kept');
  }

  function confirm(key: string, digest: Digest, { asked, recordedAs }: { asked: number; recordedAs: string }): void {
    const before = cached.get(key);
    const isSame = before?.digest === digest;
    const isWritten = isSame && !before.refused && before.goneSince === undefined && asked - before.writtenAt < REWRITE_AFTER_MS;
    const writtenAt = isWritten ? before.writtenAt : asked;
    const state = { quietUntil: -Infinity, refused: false, goneSince: undefined, imported: isSame && before.imported };
    const tag = { digest, checkedAt: asked, recordedAs, writtenAt, readAt: asked, ...state };
    unreachable.delete(upstreamOf(key));
    cached.set(key, tag);
    absent.delete(key);
    if (!isWritten) write(key, tag);
  }

  function forget(key: string, error: OciError): void {
    absent.set(key, { until: now() + policy.negativeTtl, error });
    if (cached.delete(key)) records.remove(key);
  }

  function noteOutage(key: string, error: unknown): void {
    if (!isOciError(error) || error.code === 'UNAVAILABLE') unreachable.set(upstreamOf(key), now());
    else unreachable.delete(upstreamOf(key));
  }

  function postpone(key: string, error: unknown, asked: number): void {
    noteOutage(key, error);
    const before = cached.get(key);
    if (before === undefined) return;
    const retryAfter = 1000 * (isOciError(error) ? (error.retryAfter ?? 0) : 0);
    const quietUntil = asked + Math.max(policy.tagTtl, Math.min(retryAfter, MAX_QUIET_MS));
    const refused = before.refused || isOciError(error, 'UNAUTHORIZED', 'DENIED'); // until the upstream confirms the tag again
    const tag = { ...before, quietUntil, refused };
    cached.set(key, tag);
    if (refused !== before.refused) write(key, tag); // the refusal must survive a restart
  }

  /** Sends one request to upstream at a time per tag, for all callers. The request continues if its
   *  callers have been served the cached tag instead, and is aborted once all of them have left.
   *  After a tagTtl without an answer, the upstream may be asked again: otherwise one hung
   *  connection would keep the tag from being updated. */
  function askOnce(key: string, question: Question): Asking {
    const running = asking.get(key);
    if (running !== undefined && now() - running.since < Math.max(policy.tagTtl, ANSWER_TIMEOUT_MS)) return running;
    const answer = Promise.withResolvers<void>();
    const remove = (): void => {
      if (asking.get(key) === started) asking.delete(key);
    };
    const callers = createCallers(remove);
    const done = refresh(key, question, { answered: answer.resolve, signal: callers.stop.signal }).finally(() => {
      callers.end();
      remove();
    });
    done.then(() => answer.resolve(), answer.reject);
    answer.promise.catch(() => undefined); // every caller gets the error; there may be none
    const started: Asking = { answered: answer.promise, done, callers, since: now() };
    asking.set(key, started);
    return started;
  }

  /** Waits up to ANSWER_TIMEOUT_MS for the upstream's answer about a cached tag. */
  async function revalidate(key: string, question: Question, signal: AbortSignal): Promise<TagAnswer> {
    const { answered, done, callers } = askOnce(key, question);
    const inTime = raceAbort(answered, AbortSignal.timeout(ANSWER_TIMEOUT_MS)).then(() => done);
    return callers.wait(inTime, signal);
  }

  return {
    fresh(repository, tag) {
      const found = cached.get(tagKey(repository, tag));
      return found !== undefined && found.goneSince === undefined && now() - found.checkedAt < policy.tagTtl ? found.digest : undefined;
    },
    async resolve(repository, tag, question, signal) {
      const key = tagKey(repository, tag);
      const gone = absent.get(key);
      if (gone !== undefined && gone.until > now()) throw gone.error;
      const before = await find(key, signal);
      signal.throwIfAborted(); // the caller has left: it needs no answer
      if (before === undefined) {
        const { done, callers } = askOnce(key, question);
        return { ...(await callers.wait(done, signal)), stale: false };
      }
      if (now() - before.checkedAt < policy.tagTtl) return { digest: before.digest, stale: before.goneSince !== undefined };

      const isOutage = before.imported && now() - (unreachable.get(upstreamOf(key)) ?? -Infinity) < UNREACHABLE_MS;
      const isSaving = Date.now() < policy.rateLimit.blockedUntil() && now() - before.checkedAt <= lifeOf(before, repository);
      let reason: unknown = isSaving ? 'upstream allows few more pulls, or none' : 'asked a moment ago, without an answer';
      if (now() >= before.quietUntil && !isSaving) {
        try {
          // Ask in the background, to notice when the upstream is back; the pull does not wait for
          // it.
          if (isOutage) askOnce(key, question).done.catch(() => undefined);
          else {
            const { gone, ...answer } = await revalidate(key, question, signal);
            return { ...answer, stale: gone === true };
          }
        } catch (error) {
          signal.throwIfAborted();
          if (isAbsent(error)) throw error;
          noteOutage(key, error);
          reason = error;
        }
      }
      const latest = (await findLatest(key, signal)) ?? before;
      const ageMs = now() - latest.checkedAt;
      if (ageMs > lifeOf(latest, repository)) {
        if (isOciError(reason)) throw reason;
        throw new OciError('UNAVAILABLE', `upstream does not answer, and the cached ${repository}:${tag} is too old to be served`);
      }
      const entry = { event: 'tag-stale', repository, tag, error: reason, ageSeconds: Math.round(ageMs / 1000) };
      if (latest.imported) log.debug(entry, 'upstream cannot confirm an imported tag: serving it');
      else log.warn(entry, 'upstream cannot confirm a tag: serving the cached one');
      return { digest: latest.digest, stale: true };
    },
  };
}

/** @throws OciError, but never that the tag is absent: the upstream has just confirmed that it
 *  exists */
async function bring(question: Question, digest: Digest, signal: AbortSignal): Promise<void> {
  try {
    await question.bring(digest, signal);
  } catch (cause) {
    if (!isAbsent(cause)) throw cause;
    throw new OciError('UNAVAILABLE', `upstream has moved a tag to ${digest}, but does not have that manifest`, {
      cause,
      origin: 'upstream',
    });
  }
}
