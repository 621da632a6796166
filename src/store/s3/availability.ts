import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../../async/backoff.ts';
import { raceAbort } from '../../async/race-abort.ts';
import { OciError } from '../../oci/error.ts';
import { SourceError } from '../failure.ts';
import { failureOf, type Failure } from './errors.ts';

/** Calls of one kind share a pause: a gateway that takes no uploads may still serve downloads. */
export type CallKind = 'read' | 'write';

export interface Call {
  /** For messages: `reading v1/…`. */
  doing: string;
  kind: CallKind;
  signal: AbortSignal;
  /** How long S3 may take to answer, in ms; the response body is not limited. Infinity: as long as
   *  S3 keeps accepting bytes. */
  limit?: number | undefined;
  /** If S3 answers that there is no such object, the result is undefined instead of an error. */
  mayBeAbsent?: boolean;
}

export interface Availability {
  /** Runs `work`, and retries it if that may help. @throws OciError UNAVAILABLE (origin storage);
   *  the cause of a SourceError */
  attempt<T>(this: void, call: Call, work: (signal: AbortSignal) => Promise<T>): Promise<T | undefined>;
}

export interface AvailabilityOptions {
  /** Translates an error for the operator. */
  describe(this: void, error: unknown, doing: string): OciError;
  /** Whether an error has revealed a clock difference or a region that lets the same call succeed
   *  now. */
  corrected(this: void, error: unknown): boolean;
}

/** How long calls fail immediately after a call that S3 did not answer: pulls do not wait for an S3
 *  that is down. */
const PAUSE_MS = 3000;
/** How long a call without a request body waits for the head of the response. */
const ANSWER_LIMIT_MS = 5000;
/** The maximum number of tries, by the failure of the previous one. A kept-alive connection may
 *  just have been closed, and so may the next one in the pool; a busy S3 may have one bad
 *  moment. */
const MAX_TRIES: Record<CallKind, Partial<Record<Failure, number>>> = {
  read: { reset: 3, busy: 2 },
  write: { reset: 3, busy: 3 },
};

/** Retries calls that failed temporarily, and saves callers from waiting for a silent S3: only
 *  silence pauses calls of a kind. An S3 that answers, whatever the answer, costs no waiting
 *  time. */
export function createAvailability({ describe, corrected }: AvailabilityOptions): Availability {
  const pausedUntil: Record<CallKind, number> = { read: 0, write: 0 };

  /** @throws OciError UNAVAILABLE: S3 was silent a moment ago */
  function enter({ kind, doing }: Call): void {
    const now = Date.now();
    if (now < pausedUntil[kind]) {
      throw new OciError('UNAVAILABLE', `S3 did not answer a moment ago; skipped ${doing}`, {
        origin: 'storage',
        retryAfter: PAUSE_MS / 1000,
      });
    }
    // After a pause one call probes S3; all others skip S3 until that call has been answered.
    if (pausedUntil[kind] > 0) pausedUntil[kind] = now + PAUSE_MS;
  }

  async function attempt<T>(call: Call, work: (signal: AbortSignal) => Promise<T>): Promise<T | undefined> {
    const { doing, kind, signal, mayBeAbsent = false, limit = ANSWER_LIMIT_MS } = call;
    signal.throwIfAborted();
    enter(call);
    const started = Date.now();
    let adjusted = false;
    for (let tries = 1; ; tries++) {
      try {
        const answer = await answered(work, signal, limit);
        pausedUntil[kind] = 0;
        return answer;
      } catch (error) {
        if (error instanceof SourceError) throw error.cause;
        if (error instanceof OciError) throw error;
        const failure = failureOf(error);
        // A caller whose own timeout ended before `limit` has had no answer either.
        const late = (signal.reason as Error | undefined)?.name === 'TimeoutError';
        if (signal.aborted && !late) throw signal.reason;
        pausedUntil[kind] = failure === 'silent' ? Date.now() + PAUSE_MS : 0;
        if (failure === 'absent' && mayBeAbsent) return undefined;
        signal.throwIfAborted();
        if (!adjusted && corrected(error)) {
          adjusted = true;
          continue;
        }
        const inTime = limit === Infinity || Date.now() - started < limit / 2;
        if (!inTime || tries >= (MAX_TRIES[kind][failure] ?? 1)) throw describe(error, doing);
        if (failure !== 'reset') await delay(pauseBefore(kind, tries), undefined, { signal });
      }
    }
  }

  return { attempt };
}

/** Milliseconds. */
function pauseBefore(kind: CallKind, tries: number): number {
  return backoff(tries, kind === 'read' ? { baseMs: 50, jitter: 'full' } : { baseMs: 200, jitter: 'half' });
}

/** Runs `work` for at most `limit` ms. Not every part of a call honours its signal: the credentials
 *  may come from a silent service. */
async function answered<T>(work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal, limit: number): Promise<T> {
  if (limit === Infinity) return work(signal);
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), limit);
  const either = AbortSignal.any([signal, late.signal]);
  try {
    return await raceAbort(work(either), either);
  } finally {
    clearTimeout(timer);
  }
}
