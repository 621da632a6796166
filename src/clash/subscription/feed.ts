import { setTimeout as delay } from 'node:timers/promises';
import { fingerprint } from './fingerprint.ts';
import { backoff } from '../../async/backoff.ts';

export interface FeedOptions {
  /** Asked again and again: a file may change. */
  url: () => Promise<string>;
  /** Milliseconds. */
  interval: number;
  /** What is there from before. */
  known?: Fetched | undefined;
  fetch: (url: string, fetched: Fetched) => Promise<void>;
  failed: (error: unknown) => void;
  signal: AbortSignal;
}

export interface Fetched {
  /** When, in ms since 1970. */
  at: number;
  /** From where: a digest of the URL. */
  source: string;
}

/** How often a file with a URL is looked at, in ms. */
const LOOK = 2000;
/** Milliseconds, doubled by each failure. */
const FIRST_RETRY = 2000;
const LAST_RETRY = 300_000;

/** Fetches a URL now (unless what is there is young enough), at each interval, when the URL changes, and after a failure
 *  sooner. Ends with `signal`. */
export async function follow({ url, interval, known, fetch, failed, signal }: FeedOptions): Promise<void> {
  let source = known?.source;
  let next = known === undefined ? 0 : known.at + interval;
  let failures = 0;
  while (!signal.aborted) {
    try {
      const current = (await url()).trim();
      const changed = fingerprint(current) !== source;
      source = fingerprint(current);
      if (changed || Date.now() >= next) {
        await fetch(current, { at: Date.now(), source });
        failures = 0;
        next = Date.now() + interval;
      }
    } catch (error) {
      if (signal.aborted) return;
      failed(error);
      next = Date.now() + backoff(failures++, { baseMs: FIRST_RETRY, capMs: LAST_RETRY });
    }
    const pause = Math.max(100, Math.min(LOOK, next - Date.now()));
    await delay(pause, undefined, { signal, ref: false }).catch(() => undefined); // stopped
  }
}
