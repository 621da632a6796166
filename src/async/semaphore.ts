import { OciError } from '../oci/error.ts';
import { raceAbort } from './race-abort.ts';

export interface SemaphoreOptions {
  /** How many callers may wait for a place; unlimited by default. */
  maxWaiting?: number;
  /** The error message for a caller that finds the queue full. */
  full?: () => OciError;
}

export interface Semaphore {
  /** Takes a place, in the order of the calls. Call the returned function to release it; further
   *  calls do nothing.
   *  @throws the signal's reason (aborted before there was a place); OciError TOOMANYREQUESTS (the
   *  queue is full) */
  acquire(this: void, signal?: AbortSignal): Promise<() => void>;
  /** Runs `work` while it holds a place. @throws as `acquire` and `work` do */
  run<Result>(this: void, work: () => Promise<Result>, signal?: AbortSignal): Promise<Result>;
}

/** At most `count` callers at a time; the rest queue. */
export function createSemaphore(count: number, { maxWaiting = Infinity, full = tooMany }: SemaphoreOptions = {}): Semaphore {
  const waiting = new Set<() => void>(); // keeps the order of the calls
  let free = count;

  function release(): void {
    const [next] = waiting;
    if (next === undefined) {
      free++;
      return;
    }
    waiting.delete(next);
    next();
  }

  async function wait(signal: AbortSignal | undefined): Promise<void> {
    if (waiting.size >= maxWaiting) throw full();
    const turn = Promise.withResolvers<void>();
    waiting.add(turn.resolve);
    if (signal === undefined) return turn.promise;
    try {
      await raceAbort(turn.promise, signal);
    } catch (error) {
      if (!waiting.delete(turn.resolve)) release(); // granted at the moment of the abort
      throw error;
    }
  }

  async function acquire(signal?: AbortSignal): Promise<() => void> {
    signal?.throwIfAborted();
    if (free > 0) free--;
    else await wait(signal);
    let held = true;
    return () => {
      if (held) release();
      held = false;
    };
  }

  return {
    acquire,
    async run(work, signal) {
      const done = await acquire(signal);
      try {
        return await work();
      } finally {
        done();
      }
    },
  };
}

function tooMany(): OciError {
  return new OciError('TOOMANYREQUESTS', 'too many requests at once; try again in a moment', { retryAfter: 1 });
}
