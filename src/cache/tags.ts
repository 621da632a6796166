import { LRUCache } from 'lru-cache';
import { isDigest, type Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import { tagKey } from '../store/keys.ts';
import type { Log } from '../telemetry/log.ts';
import type { RateLimit } from '../upstream/rate-limit.ts';
import { raceAbort } from '../async/race-abort.ts';
import type { Records } from './record-store.ts';

export interface TagPolicy {
  /** Milliseconds, all of them. */
  tagTtl: number;
  staleFor: number;
  negativeTtl: number;
  /** Upstream is asked as somebody: its 401 and 403 may mean that the right to read has been taken away. */
  credentialed(repository: Repository): boolean;
  /** What upstream still allows. */
  rateLimit: Pick<RateLimit, 'blockedUntil' | 'countsPulls'>;
}

/** How long a known tag waits for upstream's word, in ms. */
const ANSWER_LIMIT = 2000;
/** How long what is known outlives a 401 or 403 of a credentialed upstream, in ms. */
const REFUSED_LIMIT = 3_600_000;
/** An unchanged tag's record is written again after this long, in ms: `checkedAt` counts in days, writes cost money. */
const REWRITE_AFTER = 3_600_000;
/** For how long an upstream's Retry-After is heeded, in ms. */
const MAX_QUIET = 3_600_000;
const IN_MEMORY = 20_000;

interface Known {
  digest: Digest;
  /** Milliseconds since the epoch. */
  checkedAt: number;
  writtenAt: number;
  /** No question to upstream before this, after one that failed. */
  quietUntil: number;
  refused: boolean;
}

interface Asking {
  /** Upstream has said what the tag means. */
  answered: Promise<void>;
  /** That has become what is known. */
  done: Promise<void>;
  /** Milliseconds since the epoch. */
  since: number;
}

/** How upstream is asked about one tag. */
export interface Question {
  /** What the tag means; hears whether an answer is known already. @throws OciError MANIFEST_UNKNOWN: upstream itself says that
   *  there is no such tag */
  ask(known: boolean): Promise<Digest>;
  /** Makes sure that the manifest is here: what a tag meant before is served until then. */
  bring(digest: Digest): Promise<void>;
}

export interface Tags {
  /** What the tag means. Known tags get an answer within ANSWER_LIMIT, or, when they have moved, as soon as the manifest is here.
   *  @throws OciError as `question` does, when nothing is known that may be served */
  resolve(repository: Repository, tag: Tag, question: Question, signal: AbortSignal): Promise<{ digest: Digest; stale: boolean }>;
}

/** What tags mean, asked upstream at most once a tagTtl, and known when upstream cannot say (promise 8). */
export function createTags(records: Records, policy: TagPolicy, log: Log): Tags {
  const known = new LRUCache<string, Known>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const absent = new LRUCache<string, { until: number; error: OciError }>({ maxSize: IN_MEMORY, sizeCalculation: () => 1 });
  const asking = new Map<string, Asking>();

  async function find(key: string, signal: AbortSignal): Promise<Known | undefined> {
    const remembered = known.get(key);
    if (remembered !== undefined) return remembered;
    const record = (await records.read(key, signal)) as { digest?: unknown; checkedAt?: unknown } | undefined;
    if (typeof record?.digest !== 'string' || !isDigest(record.digest)) return undefined;
    const checkedAt = typeof record.checkedAt === 'string' ? Date.parse(record.checkedAt) : 0;
    const found = { digest: record.digest, checkedAt, writtenAt: checkedAt, quietUntil: 0, refused: false };
    const meanwhile = known.get(key);
    if (meanwhile !== undefined) return meanwhile; // somebody asked upstream while the record was read
    known.set(key, found);
    return found;
  }

  /** How long it may be served without upstream's word, in ms. */
  function lifeOf({ refused }: Known, repository: Repository): number {
    return refused && policy.credentialed(repository) ? Math.min(REFUSED_LIMIT, policy.staleFor) : policy.staleFor;
  }

  async function refresh(key: string, question: Question, answered: () => void): Promise<void> {
    const now = Date.now();
    try {
      const digest = await question.ask(known.get(key) !== undefined);
      answered();
      if ((known.get(key)?.digest ?? digest) !== digest) await bring(question, digest);
      const before = known.get(key);
      if (before !== undefined && before.checkedAt > now) return; // a later question was answered sooner
      const writtenAt = before?.digest === digest && now - before.writtenAt < REWRITE_AFTER ? before.writtenAt : now;
      known.set(key, { digest, checkedAt: now, writtenAt, quietUntil: 0, refused: false });
      absent.delete(key);
      if (writtenAt === now) records.write(key, { digest, checkedAt: new Date(now).toISOString() });
    } catch (error) {
      if (isAbsent(error)) {
        absent.set(key, { until: now + policy.negativeTtl, error });
        if (known.get(key) !== undefined) records.write(key, undefined);
        known.delete(key);
      } else {
        const before = known.get(key);
        const asked = 1000 * (isOciError(error) ? (error.retryAfter ?? 0) : 0);
        const quiet = Math.max(policy.tagTtl, Math.min(asked, MAX_QUIET));
        if (before !== undefined)
          known.set(key, { ...before, quietUntil: now + quiet, refused: isOciError(error, 'UNAUTHORIZED', 'DENIED') });
      }
      throw error;
    }
  }

  /** One question at a time and tag, whoever waits for it; it goes on when nobody does. Beside one that has had no answer for
   *  longer than a tagTtl, another may be asked: else a single hung connection would keep a tag as it was. */
  function askOnce(key: string, question: Question): Asking {
    const running = asking.get(key);
    const now = Date.now();
    if (running !== undefined && now - running.since < Math.max(policy.tagTtl, ANSWER_LIMIT)) return running;
    const answer = Promise.withResolvers<void>();
    const done = refresh(key, question, answer.resolve).finally(() => {
      if (asking.get(key) === started) asking.delete(key);
    });
    done.then(answer.resolve, answer.reject);
    answer.promise.catch(() => undefined); // who waits is told
    const started: Asking = { answered: answer.promise, done, since: now };
    asking.set(key, started);
    return started;
  }

  return {
    async resolve(repository, tag, question, signal) {
      const key = tagKey(repository, tag);
      const gone = absent.get(key);
      if (gone !== undefined && gone.until > Date.now()) throw gone.error;
      const before = await find(key, signal);
      const now = Date.now();
      if (before === undefined) {
        await raceAbort(askOnce(key, question).done, signal);
        const answer = known.get(key);
        if (answer === undefined) throw new OciError('UNAVAILABLE', `${repository}:${tag} was forgotten at once`);
        return { digest: answer.digest, stale: false };
      }
      if (now - before.checkedAt < policy.tagTtl) return { digest: before.digest, stale: false };

      const saving = now < policy.rateLimit.blockedUntil() && now - before.checkedAt <= lifeOf(before, repository);
      let reason: unknown = saving ? 'upstream allows few more pulls, or none' : 'asked a moment ago, without an answer';
      if (now >= before.quietUntil && !saving) {
        try {
          const { answered, done } = askOnce(key, question);
          await raceAbort(answered, AbortSignal.any([signal, AbortSignal.timeout(ANSWER_LIMIT)]));
          await raceAbort(done, signal);
          return { digest: known.get(key)?.digest ?? before.digest, stale: false };
        } catch (error) {
          signal.throwIfAborted();
          if (isAbsent(error)) throw error;
          reason = error;
        }
      }
      const latest = known.get(key) ?? before;
      if (now - latest.checkedAt > lifeOf(latest, repository)) {
        throw isOciError(reason)
          ? reason
          : new OciError('UNAVAILABLE', `upstream does not answer, and what is known of ${repository}:${tag} is too old`);
      }
      log.warn(
        { repository, tag, error: reason, ageSeconds: Math.round((now - latest.checkedAt) / 1000) },
        'upstream cannot confirm a tag: served as it was',
      );
      return { digest: latest.digest, stale: true };
    },
  };
}

/** @throws OciError, never that the tag is absent: upstream has just said that it is there */
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
