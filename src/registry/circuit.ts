import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../telemetry/log.ts';

export interface CircuitOptions {
  /** Whether the registry answers at all. */
  probe: (signal: AbortSignal) => Promise<boolean>;
  /** Ends the probing. */
  stop: AbortSignal;
  log: Log;
}

/** What is known of a registry that may be away. */
export interface Circuit {
  readonly away: boolean;
  /** It did not answer somebody, or not yet: it is probed at once, in the background. One that answers is not away, whatever became of
   *  that request: an upstream of its own may be out of order. */
  suspect(cause?: unknown): void;
  /** Calls `listener` when it is found to be away; at once when it is. @returns what takes that back */
  onAway(listener: () => void): () => void;
}

/** Milliseconds that the first probe of one under suspicion has. */
const VERDICT = 1500;
/** Between two probes of one that is away. */
const INTERVAL = 1000;
const PATIENCE = 2000;

export function createCircuit({ probe, stop, log }: CircuitOptions): Circuit {
  const listeners = new Set<() => void>();
  let away = false;
  let probing = false;

  async function answers(within: number): Promise<boolean> {
    try {
      return await probe(AbortSignal.any([stop, AbortSignal.timeout(within)]));
    } catch {
      return false; // refused, reset, silent
    }
  }

  async function follow(cause: unknown): Promise<void> {
    if ((await answers(VERDICT)) || stop.aborted) return;
    away = true;
    log.warn({ event: 'registry-down', error: cause }, 'the registry does not answer; images come straight from upstream');
    for (const listener of listeners) listener();
    while (!stop.aborted) {
      await delay(INTERVAL, undefined, { signal: stop }).catch(() => undefined); // the loop's condition tells
      if (await answers(PATIENCE)) break;
    }
    away = false;
    if (!stop.aborted) log.info({ event: 'registry-back' }, 'the registry answers again');
  }

  return {
    get away() {
      return away;
    },
    suspect(cause) {
      if (probing || stop.aborted) return;
      probing = true;
      void follow(cause).finally(() => (probing = false));
    },
    onAway(listener) {
      if (away) listener();
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}
