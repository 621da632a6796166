import { OciError } from '../oci/error.ts';
import { raceAbort } from './race-abort.ts';

export interface CallersOptions {
  /** How long work continues after its last caller has left, in ms, plus or minus half of it:
   *  container runtimes repeat a request at once. Infinity: until it ends. */
  lingerMs: number;
}

/** The callers that wait for one piece of work. */
export interface Callers {
  /** Stops the work; aborted when the last caller has left and none has come back. */
  stop: AbortController;
  /** Waits for `promise` as one of the callers. When `signal` is aborted, the caller leaves. A
   *  caller whose promise fails earlier has not left: it still wants the work to be done.
   *  @throws what `promise` rejects with, or the signal's reason */
  wait<T>(promise: Promise<T>, signal: AbortSignal): Promise<T>;
  /** The work is over. */
  end(): void;
}

/** How many pieces of work may continue without a caller. Beyond that, work is aborted as soon as
 *  its last caller leaves. It is the newest that is aborted: its request still waits for its turn,
 *  while aborting the oldest would cost a connection. */
const MAX_LINGERING = 256;
/** Work that abandoned work has started ends together with it, without lingering a second time. */
const ABANDONED = new OciError('UNAVAILABLE', 'no caller is waiting for this response any longer');

/** Aborts work that has no callers left.
 *  @returns a function to call for each piece of work; `onAbandoned` is called just before the work
 *  is aborted */
export function abandonUnwanted({ lingerMs }: CallersOptions): (onAbandoned: () => void) => Callers {
  /** When the last caller of each piece of work left, in ms on the process's clock, by the function
   *  that aborts the work. */
  const lingering = new Map<() => void, number>();
  let timer: NodeJS.Timeout | undefined;

  function linger(abandon: () => void): void {
    if (lingerMs === Infinity) return;
    if (lingering.size >= MAX_LINGERING) return abandon();
    lingering.set(abandon, performance.now());
    timer ??= setTimeout(sweep, lingerMs);
  }

  /** Aborts together all work that was left at about the same time. Otherwise the queue would give
   *  the place of one request to the next one, which is about to be aborted too. */
  function sweep(): void {
    const now = performance.now();
    for (const [abandon, since] of lingering) if (now - since >= lingerMs / 2) abandon();
    timer = lingering.size === 0 ? undefined : setTimeout(sweep, lingerMs);
  }

  return (onAbandoned) => {
    const stop = new AbortController();
    let count = 0;
    let over = false;
    const abandon = (): void => {
      lingering.delete(abandon);
      over = true;
      onAbandoned();
      stop.abort(ABANDONED);
    };
    return {
      stop,
      async wait(promise, signal) {
        if (count++ === 0) lingering.delete(abandon);
        try {
          return await raceAbort(promise, signal);
        } finally {
          if (signal.aborted && --count === 0 && !over) {
            if (signal.reason === ABANDONED) abandon();
            else linger(abandon);
          }
        }
      },
      end() {
        over = true;
        lingering.delete(abandon);
      },
    };
  };
}
