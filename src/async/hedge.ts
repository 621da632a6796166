import { raceAbort } from './race-abort.ts';

export interface HedgeOptions<Candidate, Value> {
  /** Tries one candidate. Its signal is aborted when another candidate has won. The winner's signal
   *  is aborted only with `signal`. */
  attempt(this: void, candidate: Candidate, signal: AbortSignal): Promise<Value>;
  /** Whether this failure ends the search. */
  isFinal(this: void, candidate: Candidate, error: unknown): boolean;
  /** How long to wait for a candidate before the next one is started as well, in ms. */
  patienceMs: number;
  signal: AbortSignal;
}

export type HedgeResult<Candidate, Value> =
  | { won: true; candidate: Candidate; value: Value; overtaken: Candidate[] }
  | { won: false; failures: { candidate: Candidate; error: unknown }[] };

/** Tries candidates in order until one succeeds. The next one starts when the previous one has
 *  failed or is slow; a slow candidate continues and may still win.
 *  @returns the first success, with the slower candidates that had been tried earlier; or all
 *  failures
 *  @throws the signal's reason */
export async function hedge<Candidate, Value>(
  candidates: readonly Candidate[],
  { attempt, isFinal, patienceMs, signal }: HedgeOptions<Candidate, Value>,
): Promise<HedgeResult<Candidate, Value>> {
  signal.throwIfAborted();
  const result = Promise.withResolvers<HedgeResult<Candidate, Value>>();
  const failures: { candidate: Candidate; error: unknown }[] = [];
  const running = new Map<Candidate, AbortController>();
  const untried = [...candidates];
  let timer: NodeJS.Timeout | undefined;
  let over = false;

  function conclude(outcome?: HedgeResult<Candidate, Value>): void {
    over = true;
    clearTimeout(timer);
    for (const controller of running.values()) controller.abort(new Error('another source has answered'));
    if (outcome !== undefined) result.resolve(outcome);
  }

  function tryNext(): void {
    clearTimeout(timer);
    const candidate = untried.shift();
    if (candidate !== undefined) void run(candidate);
    else if (running.size === 0) conclude({ won: false, failures });
    if (untried.length > 0) timer = setTimeout(tryNext, patienceMs);
  }

  async function run(candidate: Candidate): Promise<void> {
    const own = new AbortController();
    running.set(candidate, own);
    try {
      const value = await attempt(candidate, AbortSignal.any([signal, own.signal]));
      running.delete(candidate);
      if (over) return; // its signal is aborted
      const earlier = candidates.slice(0, candidates.indexOf(candidate));
      conclude({ won: true, candidate, value, overtaken: [...running.keys()].filter((other) => earlier.includes(other)) });
    } catch (error) {
      running.delete(candidate);
      if (over) return;
      failures.push({ candidate, error });
      if (isFinal(candidate, error)) conclude({ won: false, failures });
      else tryNext();
    }
  }

  tryNext();
  try {
    return await raceAbort(result.promise, signal);
  } finally {
    if (!over) conclude();
  }
}
