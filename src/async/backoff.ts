export interface BackoffOptions {
  /** The pause before the first retry, in ms; it doubles with each further attempt. */
  baseMs: number;
  /** The longest pause, in ms; unlimited by default. */
  capMs?: number;
  /** `none`: exactly the pause. `half`: 0.5 to 1.5 times the pause. `full`: 0 to 1 times the pause,
   *  which spreads callers that failed together the most. By default none. */
  jitter?: 'none' | 'half' | 'full';
}

const JITTER = { none: () => 1, half: () => 0.5 + Math.random(), full: () => Math.random() };

/** How long to wait before trying again, in ms. @param attempt how many retries there were before:
 *  0 for the first */
export function backoff(attempt: number, { baseMs, capMs = Infinity, jitter = 'none' }: BackoffOptions): number {
  return Math.min(baseMs * 2 ** attempt, capMs) * JITTER[jitter]();
}
