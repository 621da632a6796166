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
  /** How long S3 has to answer, in ms; a body that comes with the answer is not hurried. Infinity: as long as it keeps taking bytes. */
  limit?: number | undefined;
  /** S3 may answer that there is no such object: the result is undefined then. Otherwise that is an error. */
  mayBeAbsent?: boolean;
}

export interface Availability {
  /** Runs `work`, again where that may help. @throws OciError UNAVAILABLE (origin storage); what a SourceError was caused by */
  attempt<T>(this: void, call: Call, work: (signal: AbortSignal) => Promise<T>): Promise<T | undefined>;
}

export interface AvailabilityOptions {
  /** What an error means to the person who has to act. */
  describe(this: void, error: unknown, doing: string): OciError;
  /** Whether something was learned from an error, a clock or a region, that lets the same call succeed now. */
  corrected(this: void, error: unknown): boolean;
}

/** How long calls fail at once after one that S3 left without an answer: pulls do not wait for an S3 that is down. */
const PAUSE_MS = 3000;
/** How long a call without a body to send waits for the head of its answer. */
const ANSWER_LIMIT_MS = 5000;
/** How often a call is made in all, by how the one before failed. A connection that was kept alive may have been closed just now, and so may the
 *  next one in the agent's hands; a busy S3 may have one bad moment. */
const MAX_TRIES: Record<CallKind, Partial<Record<Failure, number>>> = {
  read: { reset: 3, busy: 2 },
  write: { reset: 3, busy: 3 },
};

/** Repeats calls that failed for a passing reason, and spares the callers an S3 that says nothing: only silence pauses a kind of calls. An S3 that
 *  answers, whatever it answers, costs nobody time. */
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
    // After a pause one call finds out for all; the rest go on without S3 until it has been answered.
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
        // A caller whose own time was up before `limit` has had no answer either.
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

/** The answer of `work`, within `limit` ms. Not all of a call heeds its signal: credentials may be on their way from a service that is silent. */
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
