import { isDigest, type Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import { tagKey } from '../store/keys.ts';
import type { Log } from '../telemetry/log.ts';
import { settled } from './settled.ts';
import { createLru } from './lru.ts';
import type { Records } from './records.ts';

export interface TagPolicy {
  /** Milliseconds, all of them. */
  tagTtl: number;
  staleFor: number;
  negativeTtl: number;
  /** Upstream is asked as somebody: its 401 and 403 may mean that the right to read has been taken away. */
  credentialed(repository: Repository): boolean;
}

/** How long a known tag waits for upstream's word, in ms. */
const ANSWER_LIMIT = 2000;
/** How long what is known outlives a 401 or 403 of a credentialed upstream, in ms. */
const REFUSED_LIMIT = 3_600_000;
/** An unchanged tag's record is written again after this long, in ms: `checkedAt` counts in days, writes cost money. */
const REWRITE_AFTER = 3_600_000;
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

export interface Tags {
  /** What the tag means. `ask` puts the question to upstream, and hears whether an answer is known already: it gives the digest, or throws MANIFEST_UNKNOWN when upstream
   *  itself says that there is none. Known tags get an answer within ANSWER_LIMIT.
   *  @throws OciError as `ask` does, when nothing is known that may be served */
  resolve(
    repository: Repository,
    tag: Tag,
    ask: (known: boolean) => Promise<Digest>,
    signal: AbortSignal,
  ): Promise<{ digest: Digest; stale: boolean }>;
}

/** What tags mean, asked upstream at most once a tagTtl, and known when upstream cannot say (DESIGN promise 8). */
export function createTags(records: Records, policy: TagPolicy, log: Log): Tags {
  const known = createLru<Known>(IN_MEMORY);
  const absent = createLru<{ until: number; error: OciError }>(IN_MEMORY);
  const asking = new Map<string, { question: Promise<void>; since: number }>();

  async function find(key: string, signal: AbortSignal): Promise<Known | undefined> {
    const remembered = known.get(key);
    if (remembered !== undefined) return remembered;
    const record = (await records.read(key, signal)) as { digest?: unknown; checkedAt?: unknown } | undefined;
    if (typeof record?.digest !== 'string' || !isDigest(record.digest)) return undefined;
    const checkedAt = typeof record.checkedAt === 'string' ? Date.parse(record.checkedAt) : 0;
    const found = { digest: record.digest, checkedAt, writtenAt: checkedAt, quietUntil: 0, refused: false };
    known.set(key, found);
    return found;
  }

  async function refresh(key: string, ask: (known: boolean) => Promise<Digest>): Promise<void> {
    const now = Date.now();
    try {
      const digest = await ask(known.get(key) !== undefined);
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
        const quiet = Math.max(policy.tagTtl, 1000 * (isOciError(error) ? (error.retryAfter ?? 0) : 0));
        if (before !== undefined)
          known.set(key, { ...before, quietUntil: now + quiet, refused: isOciError(error, 'UNAUTHORIZED', 'DENIED') });
      }
      throw error;
    }
  }

  /** One question at a time and tag, whoever waits for it; it goes on when nobody does. Beside one that has had no answer for
   *  longer than a tagTtl, another may be asked: else a single hung connection would keep a tag as it was. */
  function askOnce(key: string, ask: (known: boolean) => Promise<Digest>): Promise<void> {
    const running = asking.get(key);
    const now = Date.now();
    if (running !== undefined && now - running.since < Math.max(policy.tagTtl, ANSWER_LIMIT)) return running.question;
    const question = refresh(key, ask).finally(() => {
      if (asking.get(key)?.question === question) asking.delete(key);
    });
    question.catch(() => undefined); // who waits is told
    asking.set(key, { question, since: now });
    return question;
  }

  return {
    async resolve(repository, tag, ask, signal) {
      const key = tagKey(repository, tag);
      const gone = absent.get(key);
      if (gone !== undefined && gone.until > Date.now()) throw gone.error;
      const before = await find(key, signal);
      const now = Date.now();
      if (before === undefined) {
        await settled(askOnce(key, ask), signal);
        const answer = known.get(key);
        if (answer === undefined) throw new OciError('UNAVAILABLE', `${repository}:${tag} was forgotten at once`);
        return { digest: answer.digest, stale: false };
      }
      if (now - before.checkedAt < policy.tagTtl) return { digest: before.digest, stale: false };

      let reason: unknown = 'asked a moment ago, without an answer';
      if (now >= before.quietUntil) {
        try {
          await settled(askOnce(key, ask), AbortSignal.any([signal, AbortSignal.timeout(ANSWER_LIMIT)]));
          return { digest: known.get(key)?.digest ?? before.digest, stale: false };
        } catch (error) {
          signal.throwIfAborted();
          if (isAbsent(error)) throw error;
          reason = error;
        }
      }
      const latest = known.get(key) ?? before;
      const limit = latest.refused && policy.credentialed(repository) ? Math.min(REFUSED_LIMIT, policy.staleFor) : policy.staleFor;
      if (now - latest.checkedAt > limit) {
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
