import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../telemetry/log.ts';

export interface OutageOptions {
  /** Resolves to whether the registry answers at all. */
  probe: (signal: AbortSignal) => Promise<boolean>;
  /** Ends the probing. */
  stop: AbortSignal;
  log: Log;
}

/** Knows whether a registry is down. */
export interface Outage {
  readonly isDown: boolean;
  /** Call when a request failed or is overdue: the registry is probed at once, in the background.
   *  If it answers the probe, it is not down, whatever happened to the request: one of its
   *  upstreams may be failing. */
  suspect(cause?: unknown): void;
  /** Calls `listener` when the registry goes down; at once if it is down. @returns a function that
   *  unsubscribes */
  onDown(listener: () => void): () => void;
}

const FIRST_PROBE_TIMEOUT_MS = 1500;
/** Between two probes of a registry that is down. */
const PROBE_INTERVAL_MS = 1000;
const PROBE_TIMEOUT_MS = 2000;

export function createOutage({ probe, stop, log }: OutageOptions): Outage {
  const listeners = new Set<() => void>();
  let isDown = false;
  let probing = false;

  async function answers(timeoutMs: number): Promise<boolean> {
    try {
      return await probe(AbortSignal.any([stop, AbortSignal.timeout(timeoutMs)]));
    } catch {
      return false; // refused, reset, silent
    }
  }

  async function investigate(cause: unknown): Promise<void> {
    if ((await answers(FIRST_PROBE_TIMEOUT_MS)) || stop.aborted) return;
    isDown = true;
    log.warn({ event: 'registry-down', error: cause }, 'the registry does not answer; pulling directly from upstream');
    for (const listener of listeners) listener();
    while (!stop.aborted) {
      await delay(PROBE_INTERVAL_MS, undefined, { signal: stop }).catch(() => undefined); // the loop's condition checks it
      if (await answers(PROBE_TIMEOUT_MS)) break;
    }
    isDown = false;
    if (!stop.aborted) log.info({ event: 'registry-back' }, 'the registry answers again');
  }

  return {
    get isDown() {
      return isDown;
    },
    suspect(cause) {
      if (probing || stop.aborted) return;
      probing = true;
      void investigate(cause).finally(() => (probing = false));
    },
    onDown(listener) {
      if (isDown) listener();
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
