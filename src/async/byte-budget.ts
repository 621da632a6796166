import { raceAbort } from './race-abort.ts';

/** Limits the total size of documents that are in memory at the same time. */
const DOCUMENT_BYTES = 32 * 2 ** 20;

/** The share of a budget that one piece of work holds. */
export interface ByteLease {
  /** Waits until the lease may hold `bytes` in total; callers are served in order. Returns at once
   *  if the lease already holds that many.
   *  @throws the signal's reason */
  reserve(this: void, bytes: number, signal: AbortSignal): Promise<void>;
  /** Returns the lease's bytes to the budget. */
  release(this: void): void;
}

export interface ByteBudget {
  lease(this: void): ByteLease;
}

interface Waiting {
  bytes: number;
  enter(): void;
}

/** At most `limit` bytes at a time. A lease of more than `limit` is granted once no other lease
 *  holds any bytes. */
export function createByteBudget(limit: number): ByteBudget {
  const waiting = new Set<Waiting>(); // in the order of the calls
  let used = 0;

  const fits = (bytes: number): boolean => used === 0 || used + bytes <= limit;

  function giveBack(bytes: number): void {
    used -= bytes;
    for (const next of waiting) {
      if (!fits(next.bytes)) return;
      waiting.delete(next);
      used += next.bytes;
      next.enter();
    }
  }

  async function take(bytes: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (waiting.size === 0 && fits(bytes)) {
      used += bytes;
      return;
    }
    const turn = Promise.withResolvers<void>();
    const own: Waiting = { bytes, enter: turn.resolve };
    waiting.add(own);
    try {
      await raceAbort(turn.promise, signal);
    } catch (error) {
      if (!waiting.delete(own)) giveBack(bytes); // granted together with the abort
      else giveBack(0); // the next one may be smaller
      throw error;
    }
  }

  return {
    lease() {
      let held = 0;
      const release = (): void => {
        const bytes = held;
        held = 0;
        if (bytes > 0) giveBack(bytes);
      };
      return {
        async reserve(bytes, signal) {
          if (held >= bytes) return;
          release(); // work that holds bytes must never wait for more: two of them could wait for each other
          await take(bytes, signal);
          held = bytes;
        },
        release,
      };
    },
  };
}

/** Limits the memory of documents that are being read from upstreams or the storage, for the whole
 *  process. */
export const documentBytes = createByteBudget(DOCUMENT_BYTES);
