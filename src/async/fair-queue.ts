import { OciError } from '../oci/error.ts';
import { raceAbort } from './race-abort.ts';

export interface FairQueueOptions {
  /** How many callers may hold a place at the same time. */
  running: number;
  /** How many callers may wait, over all keys. A further caller replaces the one that has waited
   *  longest. */
  waiting: number;
  /** How many callers of one key may wait. Further callers are refused. */
  perKey: number;
}

export interface FairQueue {
  /** Takes a place; call the returned function to release it.
   *  @throws the signal's reason; OciError TOOMANYREQUESTS (too many wait) */
  acquire(this: void, key: string, signal: AbortSignal): Promise<() => void>;
}

interface Caller {
  key: string;
  enter(): void;
  refuse(error: OciError): void;
}

/** A bounded queue that serves its keys in turn: many callers with one key do not delay a caller
 *  with another key. */
export function createFairQueue({ running, waiting, perKey }: FairQueueOptions): FairQueue {
  const byKey = new Map<string, Set<Caller>>(); // in the order of their turns
  const all = new Set<Caller>(); // in the order in which they came
  let free = running;

  function remove(caller: Caller): boolean {
    const own = byKey.get(caller.key);
    own?.delete(caller);
    if (own?.size === 0) byKey.delete(caller.key);
    return all.delete(caller);
  }

  function release(): void {
    const [first] = byKey;
    const [key, own] = first ?? [];
    const [caller] = own ?? [];
    if (caller === undefined || key === undefined || own === undefined) {
      free++;
      return;
    }
    remove(caller);
    if (byKey.delete(key)) byKey.set(key, own); // the key's turn is over
    caller.enter();
  }

  async function wait(key: string, signal: AbortSignal): Promise<void> {
    const own = byKey.get(key) ?? new Set();
    if (own.size >= perKey) throw tooMany();
    const [oldest] = all;
    if (all.size >= waiting && oldest !== undefined) {
      remove(oldest);
      oldest.refuse(tooMany());
    }
    const turn = Promise.withResolvers<void>();
    const caller: Caller = { key, enter: turn.resolve, refuse: turn.reject };
    byKey.set(key, own.add(caller));
    all.add(caller);
    try {
      await raceAbort(turn.promise, signal);
    } catch (error) {
      if (!remove(caller) && signal.aborted) turn.promise.then(release, () => undefined); // granted at the moment of the abort
      throw error;
    }
  }

  return {
    async acquire(key, signal) {
      signal.throwIfAborted();
      if (free > 0) free--;
      else await wait(key, signal);
      let held = true;
      return () => {
        if (held) release();
        held = false;
      };
    },
  };
}

function tooMany(): OciError {
  return new OciError('TOOMANYREQUESTS', 'too many requests are waiting for an upstream; try again in a moment', { retryAfter: 1 });
}
