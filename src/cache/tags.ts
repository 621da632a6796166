import { LRUCache } from 'lru-cache';
import { raceAbort } from '../async/race-abort.ts';
import { isDigest, type Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import type { Manifest } from '../oci/registry.ts';
import { tagKey } from '../store/keys.ts';
import type { Log } from '../telemetry/log.ts';
import type { RateLimit } from '../upstream/rate-limit.ts';
import type { RecordStore } from './record-store.ts';

export interface TagPolicy {
  /** Milliseconds, all three. */
  tagTtl: number;
  staleFor: number;
  negativeTtl: number;
  /** Whether credentials are configured for a repository: the upstream's 401 or 403 may then mean that the right to read it has been
   *  taken away. */
  credentialed(repository: Repository): boolean;
  /** What the upstream still allows. */
  rateLimit: Pick<RateLimit, 'blockedUntil' | 'countsPulls'>;
}

/** How long a known tag waits for the upstream's answer, in ms. */
const ANSWER_TIMEOUT_MS = 2000;
/** How long a cached tag is served after the upstream has refused its credentials, counted from its last confirmation, in ms. */
const REFUSED_LIFE_MS = 3_600_000;
/** The record of an unchanged tag is written again after this long, in ms: `checkedAt` counts in days, writes cost money. */
const REWRITE_AFTER_MS = 3_600_000;
/** For how long an upstream's Retry-After is honoured, in ms. */
const MAX_QUIET_MS = 3_600_000;
/** How far ahead of this machine's clock the record of another one may be, in ms. */
const CLOCK_TOLERANCE_MS = 5000;
/** Tags, each a few hundred bytes. */
const IN_MEMORY = 20_000;

/** What is cached of one tag. Times are in ms on the monotonic clock (`TagMemory.now`), which survives corrections of the wall clock. */
interface CachedTag {
  digest: Digest;
  /** When the upstream last confirmed it: on the monotonic clock, and as the record says it. */
  checkedAt: number;
  recordedAs: string;
  writtenAt: number;
  /** The upstream is not asked before this time, after a question that failed. */
  quietUntil: number;
  /** The upstream has refused its credentials since the last confirmation. */
  refused: boolean;
}

interface TagRecord {
  digest?: unknown;
  checkedAt?: unknown;
  refused?: unknown;
}

/** What the upstream says of a tag. */
export interface TagAnswer {
  digest: Digest;
  /** Its manifest, where the upstream was asked for that. */
  manifest?: Manifest;
}

interface Asking {
  /** The upstream has answered. */
  answered: Promise<void>;
  /** The answer has been cached. */
  done: Promise<TagAnswer>;
  since: number;
}

/** How the upstream is asked about one tag. */
export interface Question {
  /** Resolves the tag upstream. `known`: a digest is cached, so that this one may be answered by HEAD.
   *  @throws OciError MANIFEST_UNKNOWN: the upstream itself says that there is no such tag */
  ask(known: boolean): Promise<TagAnswer>;
  /** Fetches the manifest of a tag that has moved: what the tag meant before is served until then. */
  bring(digest: Digest): Promise<void>;
}

export interface Tags {
  /** What a tag means that is in memory and was confirmed within tagTtl. */
  fresh(repository: Repository, tag: Tag): Digest | undefined;
  /** What the tag means. A cached tag is answered within ANSWER_TIMEOUT_MS, or, when it has moved, once its manifest has been fetched.
   *  @throws OciError as `question` does, when nothing is cached that may be served */
  resolve(repository: Repository, tag: Tag, question: Question, signal: AbortSignal): Promise<ResolvedTag>;
}

export interface ResolvedTag extends TagAnswer {
  /** The upstream could not confirm it. */
  stale: boolean;
}

/** What is known of tags, shared by all that resolve them. */
export interface TagMemory {
  cached: LRUCache<string, CachedTag>;
  absent: LRUCache<string, { until: number; error: OciError }>;
  asking: Map<string, Asking>;
  /** A clock that is never set back, in ms. */
  now(this: void): number;
}

export function createTagMemory(now: () => number = () => performance.now()): TagMemory {
  const limit = { maxSize: IN_MEMORY, sizeCalculation: () => 1 };
  return { cached: new LRUCache(limit), absent: new LRUCache(limit), asking: new Map(), now };
}

/** Resolves tags: each is asked for upstream at most once per tagTtl, and served from the cache when the upstream cannot answer
 *  (promise 8). */
export function createTags(records: RecordStore, policy: TagPolicy, { log, memory }: { log: Log; memory: TagMemory }): Tags {
  const { cached, absent, asking, now } = memory;

  async function find(key: string, signal: AbortSignal): Promise<CachedTag | undefined> {
    const remembered = cached.get(key);
    if (remembered !== undefined) return remembered;
    const found = parseRecord((await records.read(key, signal)) as TagRecord | undefined);
    if (found === undefined) return undefined;
    const meanwhile = cached.get(key);
    if (meanwhile !== undefined) return meanwhile; // the upstream was asked while the record was being read
    cached.set(key, found);
    return found;
  }

  function parseRecord(record: TagRecord | undefined): CachedTag | undefined {
    if (typeof record?.digest !== 'string' || !isDigest(record.digest)) return undefined;
    const recordedAs = typeof record.checkedAt === 'string' ? record.checkedAt : new Date(0).toISOString();
    const age = Date.now() - (Date.parse(recordedAs) || 0);
    // A record of the future was written under a wrong clock: it says nothing of its age, so the upstream is asked.
    const checkedAt = now() - (age < -CLOCK_TOLERANCE_MS ? policy.tagTtl : Math.max(0, age));
    return { digest: record.digest, checkedAt, recordedAs, writtenAt: checkedAt, quietUntil: -Infinity, refused: record.refused === true };
  }

  function write(key: string, { digest, recordedAs, refused }: CachedTag): void {
    records.put(key, { digest, checkedAt: recordedAs, ...(refused ? { refused } : {}) });
  }

  /** How long after its last confirmation a tag may be served, in ms. */
  function lifeOf({ refused }: CachedTag, repository: Repository): number {
    return refused && policy.credentialed(repository) ? Math.min(REFUSED_LIFE_MS, policy.staleFor) : policy.staleFor;
  }

  async function refresh(key: string, question: Question, answered: () => void): Promise<TagAnswer> {
    const asked = now();
    const checkedAt = new Date();
    try {
      const answer = await question.ask(cached.get(key) !== undefined);
      answered();
      if ((cached.get(key)?.digest ?? answer.digest) !== answer.digest && answer.manifest === undefined)
        await bring(question, answer.digest);
      const before = cached.get(key);
      if (before !== undefined && before.checkedAt > asked) return { digest: before.digest }; // a later question was answered sooner
      confirm(key, answer.digest, { asked, recordedAs: checkedAt.toISOString() });
      return answer;
    } catch (error) {
      if (isAbsent(error)) forget(key, error);
      else postpone(key, error, asked);
      throw error;
    }
  }

  function confirm(key: string, digest: Digest, { asked, recordedAs }: { asked: number; recordedAs: string }): void {
    const before = cached.get(key);
    const isWritten = before?.digest === digest && !before.refused && asked - before.writtenAt < REWRITE_AFTER_MS;
    const writtenAt = isWritten ? before.writtenAt : asked;
    const tag = { digest, checkedAt: asked, recordedAs, writtenAt, quietUntil: -Infinity, refused: false };
    cached.set(key, tag);
    absent.delete(key);
    if (!isWritten) write(key, tag);
  }

  function forget(key: string, error: OciError): void {
    absent.set(key, { until: now() + policy.negativeTtl, error });
    if (cached.delete(key)) records.remove(key);
  }

  function postpone(key: string, error: unknown, asked: number): void {
    const before = cached.get(key);
    if (before === undefined) return;
    const retryAfter = 1000 * (isOciError(error) ? (error.retryAfter ?? 0) : 0);
    const quietUntil = asked + Math.max(policy.tagTtl, Math.min(retryAfter, MAX_QUIET_MS));
    const refused = before.refused || isOciError(error, 'UNAUTHORIZED', 'DENIED'); // until the upstream confirms the tag again
    const tag = { ...before, quietUntil, refused };
    cached.set(key, tag);
    if (refused !== before.refused) write(key, tag); // a restart must not bring it back
  }

  /** Asks one question at a time per tag, for all that wait for it; it goes on when nobody does. A question without an answer for
   *  longer than a tagTtl may be asked again: otherwise one hung connection would keep a tag as it was. */
  function askOnce(key: string, question: Question): Asking {
    const running = asking.get(key);
    if (running !== undefined && now() - running.since < Math.max(policy.tagTtl, ANSWER_TIMEOUT_MS)) return running;
    const answer = Promise.withResolvers<void>();
    const done = refresh(key, question, answer.resolve).finally(() => {
      if (asking.get(key) === started) asking.delete(key);
    });
    done.then(() => answer.resolve(), answer.reject);
    answer.promise.catch(() => undefined); // every caller gets the error; there may be none
    const started: Asking = { answered: answer.promise, done, since: now() };
    asking.set(key, started);
    return started;
  }

  /** Waits for the upstream's word on a cached tag, for ANSWER_TIMEOUT_MS. */
  async function revalidate(key: string, question: Question, signal: AbortSignal): Promise<TagAnswer> {
    const { answered, done } = askOnce(key, question);
    await raceAbort(answered, AbortSignal.any([signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]));
    return raceAbort(done, signal);
  }

  return {
    fresh(repository, tag) {
      const found = cached.get(tagKey(repository, tag));
      return found !== undefined && now() - found.checkedAt < policy.tagTtl ? found.digest : undefined;
    },
    async resolve(repository, tag, question, signal) {
      const key = tagKey(repository, tag);
      const gone = absent.get(key);
      if (gone !== undefined && gone.until > now()) throw gone.error;
      const before = await find(key, signal);
      if (before === undefined) return { ...(await raceAbort(askOnce(key, question).done, signal)), stale: false };
      if (now() - before.checkedAt < policy.tagTtl) return { digest: before.digest, stale: false };

      const isSaving = Date.now() < policy.rateLimit.blockedUntil() && now() - before.checkedAt <= lifeOf(before, repository);
      let reason: unknown = isSaving ? 'upstream allows few more pulls, or none' : 'asked a moment ago, without an answer';
      if (now() >= before.quietUntil && !isSaving) {
        try {
          return { ...(await revalidate(key, question, signal)), stale: false };
        } catch (error) {
          signal.throwIfAborted();
          if (isAbsent(error)) throw error;
          reason = error;
        }
      }
      const latest = cached.get(key) ?? before;
      const ageMs = now() - latest.checkedAt;
      if (ageMs > lifeOf(latest, repository)) {
        if (isOciError(reason)) throw reason;
        throw new OciError('UNAVAILABLE', `upstream does not answer, and the cached ${repository}:${tag} is too old to be served`);
      }
      const entry = { event: 'tag-stale', repository, tag, error: reason, ageSeconds: Math.round(ageMs / 1000) };
      log.warn(entry, 'upstream cannot confirm a tag: serving the cached one');
      return { digest: latest.digest, stale: true };
    },
  };
}

/** @throws OciError, never that the tag is absent: the upstream has just said that it is there */
async function bring(question: Question, digest: Digest): Promise<void> {
  try {
    await question.bring(digest);
  } catch (cause) {
    if (!isAbsent(cause)) throw cause;
    throw new OciError('UNAVAILABLE', `upstream has moved a tag to ${digest}, but does not have that manifest`, {
      cause,
      origin: 'upstream',
    });
  }
}
