import { setTimeout as delay } from 'node:timers/promises';
import { isOciError, isPolicyRefusal, OciError } from '../oci/error.ts';
import type { Outage } from './outage.ts';

/** `first` is the registry, `second` goes straight to upstream. */
export type Side = 'first' | 'second';

/** An answer of one side. */
export interface Answer<T> {
  value: T;
  side: Side;
  /** Ends the work that this side still does for the answer, such as sending a body. */
  end: (reason: Error) => void;
}

export interface RaceOptions {
  outage: Outage;
  /** Milliseconds without an answer after which the other side is asked as well. */
  slowAfterMs: number;
  /** Milliseconds after which the race fails. */
  limitMs: number;
  /** Called when `second` is asked. */
  onSecond: () => void;
}

/** Asks one side. */
export type Ask<T> = (side: Side, signal: AbortSignal) => Promise<T>;

/** The longest Retry-After of `first` that is waited for here, in seconds. */
const MAX_RETRY_AFTER_S = 5;

/** Ends the side that has not won. Made once: an error for each request, with its stack, took more
 *  than 1 % of the time of a warm pull. */
const LOST = new OciError('UNAVAILABLE', 'the other source answered first');

/** Asks side `from`, and the other one too if that fails, is slow or is down. The first success
 *  wins and ends the other side.
 *
 *  A final answer of `first` is not asked of `second` again: that something does not exist, or 429,
 *  since another request would only make the limit worse. A refusal (401, 403) may be the
 *  registry's own, for example because its credentials have expired, so `second` is asked without
 *  any; if it refuses too, the registry's words are thrown.
 *  @throws the more specific OciError of the two sides; UNAVAILABLE: neither side answered in
 *  time */
export async function race<T>(ask: Ask<T>, from: Side, { signal, ...options }: RaceOptions & { signal: AbortSignal }): Promise<Answer<T>> {
  signal.throwIfAborted();
  const { outage, slowAfterMs, limitMs } = options;
  const state = createRace(ask, options);
  // This stays after the race: the body of the answer ends with its client too.
  signal.addEventListener('abort', () => state.endAll(signal.reason), { once: true });
  const timers = [
    setTimeout(() => from === 'first' && outage.suspect(), slowAfterMs / 2),
    setTimeout(() => state.onSlow(other(from)), slowAfterMs),
    setTimeout(() => state.endAll(tooLate(limitMs)), limitMs),
  ];
  const unsubscribe = outage.onDown(() => state.onDown());
  state.start(from);
  try {
    return await state.winner;
  } finally {
    unsubscribe();
    state.stopWaiting();
    for (const timer of timers) clearTimeout(timer);
  }
}

interface RaceState<T> {
  winner: Promise<Answer<T>>;
  /** Asks a side, unless it has been asked. */
  start(side: Side): void;
  onDown(): void;
  /** Asks `side` because the other one is slow, unless that one is waiting for a Retry-After. */
  onSlow(side: Side): void;
  endAll(reason: unknown): void;
  stopWaiting(): void;
}

function createRace<T>(ask: Ask<T>, { outage, slowAfterMs, onSecond }: RaceOptions): RaceState<T> {
  const controllers = { first: new AbortController(), second: new AbortController() };
  const errors: Partial<Record<Side, unknown>> = {};
  const asked = new Set<Side>();
  const winner = Promise.withResolvers<Answer<T>>();
  let waiting: NodeJS.Timeout | undefined;
  let isPatient = false;

  function endAll(reason: unknown): void {
    controllers.first.abort(reason);
    controllers.second.abort(reason);
    winner.reject(reason);
  }

  function start(side: Side): void {
    if (asked.has(side)) return;
    asked.add(side);
    if (side === 'second') onSecond();
    const { signal } = controllers[side];
    ask(side, signal).then(
      (value) => succeed(side, value),
      (error: unknown) => fail(side, error),
    );
  }

  function startAgain(side: Side): void {
    asked.delete(side);
    start(side);
  }

  function succeed(side: Side, value: T): void {
    if (controllers[side].signal.aborted) return;
    controllers[other(side)].abort(LOST);
    winner.resolve({ value, side, end: (reason) => controllers[side].abort(reason) });
  }

  function fail(side: Side, error: unknown): void {
    const { signal } = controllers[side];
    if (signal.aborted) return; // it lost, or the client has disconnected
    if (side === 'first' && !isPatient && hasShortRetryAfter(error)) {
      isPatient = true;
      void delay(1000 * (error.retryAfter ?? 0), undefined, { signal }).then(
        () => startAgain(side),
        () => undefined, // the race has ended
      );
      return;
    }
    errors[side] = error;
    if (side === 'first' && isOutage(error)) outage.suspect(error);
    if (side === 'first' && isFinal(error)) winner.reject(error);
    else if ('first' in errors && 'second' in errors) winner.reject(betterError(errors.first, errors.second));
    else start(other(side));
    if (outage.isDown) waitForFirst();
  }

  /** Upstream has refused while the registry is down. The image may exist only in the registry, so
   *  that gets `slowAfterMs` to come back before upstream's error is thrown. */
  function waitForFirst(): void {
    if (!('second' in errors) || isOutage(errors.second)) return;
    waiting ??= setTimeout(() => outage.isDown && endAll(errors.second), slowAfterMs);
  }

  return {
    winner: winner.promise,
    start,
    endAll,
    onSlow(side) {
      if (!isPatient) start(side);
    },
    onDown() {
      start('second');
      waitForFirst();
    },
    stopWaiting: () => clearTimeout(waiting),
  };
}

/** True of a 429 that is worth waiting for here. */
function hasShortRetryAfter(error: unknown): error is OciError {
  return isOciError(error, 'TOOMANYREQUESTS') && error.retryAfter !== undefined && error.retryAfter <= MAX_RETRY_AFTER_S;
}

export function other(side: Side): Side {
  return side === 'first' ? 'second' : 'first';
}

/** True if the side could not answer, as opposed to answering with an error. */
export function isOutage(error: unknown): boolean {
  return !isOciError(error) || isOciError(error, 'UNAVAILABLE', 'UNKNOWN');
}

/** True of errors of `first` after which `second` need not be asked. NAME_UNKNOWN means that the
 *  registry has no such upstream, which this agent's configuration may have. */
function isFinal(error: unknown): boolean {
  if (isPolicyRefusal(error)) return true;
  return !isOutage(error) && !isOciError(error, 'UNAUTHORIZED', 'DENIED', 'NAME_UNKNOWN');
}

/** The more specific of two errors. */
function betterError(first: unknown, second: unknown): unknown {
  const answer = [first, second].find((error) => !isOutage(error));
  if (answer !== undefined) return answer;
  const [registry, upstream] = [first, second].map((error) => (error instanceof Error ? error.message : String(error)));
  return new OciError('UNAVAILABLE', `neither the registry nor upstream can answer: ${registry}; ${upstream}`, { cause: second });
}

function tooLate(limitMs: number): OciError {
  return new OciError('UNAVAILABLE', `neither the registry nor upstream answered within ${limitMs / 1000} s; try again`);
}
