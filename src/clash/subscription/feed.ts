import { setTimeout as delay } from 'node:timers/promises';
import { fingerprint } from './fingerprint.ts';
import { backoff } from '../../async/backoff.ts';

export interface FeedOptions {
  /** Called repeatedly: a file that contains the URL may change. */
  url: () => Promise<string>;
  /** Milliseconds. */
  interval: number;
  /** The content fetched before. */
  known?: Fetched | undefined;
  fetch: (url: string, fetched: Fetched) => Promise<void>;
  failed: (error: unknown) => void;
  signal: AbortSignal;
}

export interface Fetched {
  /** When, in ms since 1970. */
  at: number;
  /** A digest of the URL. */
  source: string;
}

/** How often a file with a URL is read. */
const LOOK_INTERVAL_MS = 2000;
/** The pause before a retry, doubled by each failure. */
const RETRY = { baseMs: 2000, capMs: 300_000 };

/** Fetches a URL now (unless `known` is younger than the interval), at each interval, whenever
 *  the URL changes, and sooner after a failure, until `signal` is aborted. */
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
      next = Date.now() + backoff(failures++, RETRY);
    }
    const pause = Math.max(100, Math.min(LOOK_INTERVAL_MS, next - Date.now()));
    await delay(pause, undefined, { signal, ref: false }).catch(() => undefined); // stopped
  }
}
