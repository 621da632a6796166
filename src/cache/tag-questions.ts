import { raceAbort } from '../async/race-abort.ts';
import type { Digest } from '../oci/digest.ts';
import { isAbsent, OciError } from '../oci/error.ts';
import { ANSWER_TIMEOUT_MS } from './freshness.ts';
import { noteReachability, type Asking, type TagAnswer } from './tag-memory.ts';
import { confirmTag, findLatestTag, forgetTag, keepDeletedTag, postponeTag, type AskedAt, type TagCache } from './tag-records.ts';

/** How the upstream is asked about one tag. */
export interface Question {
  /** Resolves the tag upstream. `known`: a digest is cached, so HEAD is enough.
   *  @throws OciError MANIFEST_UNKNOWN: the upstream itself says that there is no such tag */
  ask(known: boolean, signal: AbortSignal): Promise<TagAnswer>;
  /** Fetches the manifest of a tag that has moved; until then, the previous manifest is served. */
  fetchManifest(digest: Digest, signal: AbortSignal): Promise<void>;
  /** Whether the store still has the manifest. True if the store cannot be asked. */
  isKept(digest: Digest): Promise<boolean>;
}

/** Sends one request to upstream at a time per tag, for all callers. The request continues if its
 *  callers have been served the cached tag instead, and is aborted once all of them have left.
 *  After a tagTtl without an answer, the upstream may be asked again: otherwise one hung connection
 *  would keep the tag from being updated. */
export function askOnce(cache: TagCache, key: string, question: Question): Asking {
  const { asking, createCallers, now } = cache.memory;
  const running = asking.get(key);
  if (running !== undefined && now() - running.since < Math.max(cache.policy.tagTtl, ANSWER_TIMEOUT_MS)) return running;
  const answer = Promise.withResolvers<void>();
  const remove = (): void => {
    if (asking.get(key) === started) asking.delete(key);
  };
  const callers = createCallers(remove);
  const done = refresh(cache, key, { question, answered: answer.resolve, signal: callers.stop.signal }).finally(() => {
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
export async function revalidate(cache: TagCache, key: string, question: Question, signal: AbortSignal): Promise<TagAnswer> {
  const { answered, done, callers } = askOnce(cache, key, question);
  const inTime = raceAbort(answered, AbortSignal.timeout(ANSWER_TIMEOUT_MS)).then(() => done);
  return callers.wait(inTime, signal);
}

interface Refresh {
  question: Question;
  /** Called when the upstream has answered. */
  answered(this: void): void;
  signal: AbortSignal;
}

async function refresh(cache: TagCache, key: string, { question, answered, signal }: Refresh): Promise<TagAnswer> {
  const { cached, now } = cache.memory;
  const at: AskedAt = { asked: now(), recordedAs: new Date().toISOString() };
  try {
    const answer = await question.ask(cached.get(key) !== undefined, signal);
    answered();
    const hasMoved = (cached.get(key)?.digest ?? answer.digest) !== answer.digest;
    if (hasMoved && answer.manifest === undefined) await fetchManifest(question, answer.digest, signal);
    const before = cached.get(key);
    if (before !== undefined && before.checkedAt > at.asked) return { digest: before.digest }; // a later request was answered first
    confirmTag(cache, key, { ...at, digest: answer.digest });
    return answer;
  } catch (error) {
    if (signal.aborted) throw error; // an aborted request says nothing about the upstream
    return afterFailure(cache, key, { question, error, at });
  }
}

/** @returns the last known digest of a tag that is served although the upstream has deleted it
 *  @throws `error` in all other cases */
async function afterFailure(
  cache: TagCache,
  key: string,
  { question, error, at }: { question: Question; error: unknown; at: AskedAt },
): Promise<TagAnswer> {
  const latest = cache.memory.cached.has(key) ? await findLatestTag(cache, key, AbortSignal.timeout(ANSWER_TIMEOUT_MS)) : undefined;
  if (!isAbsent(error)) {
    postponeTag(cache, key, { asked: at.asked, error });
    throw error;
  }
  noteReachability(cache.memory, key);
  const mayServe = latest !== undefined && (latest.imported || cache.policy.onDeleted === 'serve');
  if (!mayServe || !(await question.isKept(latest.digest))) {
    forgetTag(cache, key, error);
    throw error;
  }
  keepDeletedTag(cache, key, { ...at, before: latest });
  return { digest: latest.digest, gone: true };
}

/** @throws OciError, but never that the tag is absent: the upstream has just confirmed that it
 *  exists */
async function fetchManifest(question: Question, digest: Digest, signal: AbortSignal): Promise<void> {
  try {
    await question.fetchManifest(digest, signal);
  } catch (cause) {
    if (!isAbsent(cause)) throw cause;
    throw new OciError('UNAVAILABLE', `upstream has moved a tag to ${digest}, but does not have that manifest`, {
      cause,
      origin: 'upstream',
    });
  }
}
