import { setTimeout as delay } from 'node:timers/promises';
import { raceAbort } from '../async/race-abort.ts';
import { OciError } from '../oci/error.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { Limits } from './call.ts';

/** What an upstream limits apart from other things. */
export type LimitedKind = 'manifests' | 'blobs' | 'lists';

/** What an upstream still allows, as its answers say. Docker Hub counts each GET of a manifest as a pull, and no HEAD; its answers to both
 *  carry `ratelimit-limit: 100;w=21600` and `ratelimit-remaining`, and a 429 may carry Retry-After. */
export interface RateLimit {
  /** Takes in the headers of an answer about a manifest. */
  observe(headers: Record<string, string | string[] | undefined>): void;
  /** Known tags are not asked for again before this, in ms since the epoch. Unknown tags are asked for nevertheless: a client waits. */
  blockedUntil(): number;
  /** The upstream counts pulls: what a HEAD can answer is not asked by GET. */
  countsPulls(): boolean;
  /** Call before each request. After a 429, one request alone goes through when its Retry-After is over; the others wait for what becomes
   *  of it. A wait of a few seconds is waited for.
   *  @param account whose limit it is
   *  @returns what to call with the request's error, or with undefined when it succeeded
   *  @throws OciError TOOMANYREQUESTS (with the seconds that are left); the signal's reason */
  enter(kind: LimitedKind, account: string, limits: Limits): Promise<(error: unknown) => void>;
}

/** This part of the limit is left for images that are not here yet. */
const RESERVE = 0.05;
/** Of upstreams that announce no limit. */
const USUAL_LIMIT = 100;
/** How long known tags are not asked for when few pulls are left. Then one question brings the count up to date. */
const SAVING_MS = 5 * 60_000;
/** The longest Retry-After that is honoured: limits end, and accounts change. */
const MAX_BLOCK_MS = 3_600_000;
/** How long a 429 without Retry-After counts. */
const DEFAULT_BLOCK_MS = 1000;
/** Waits of at most this long are waited for. */
export const SHORT_WAIT_MS = 3000;

/** What one account may do with one kind of thing. */
interface Gate {
  /** Milliseconds since the epoch. */
  until: number;
  /** The request that finds out whether the limit is over. */
  probe: Promise<void> | undefined;
}

/** How long to wait for the request that finds out: it may hang. */
const PROBE_PATIENCE_MS = 1000;

/** @returns false: the probe takes too long @throws the signal's reason */
async function isOver(probe: Promise<void>, signal: AbortSignal): Promise<boolean> {
  const late = AbortSignal.timeout(PROBE_PATIENCE_MS);
  try {
    await raceAbort(probe, AbortSignal.any([signal, late]));
    return true;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

/** Accounts that are known to be limited: clients name them. */
const MAX_GATES = 1000;

export function createRateLimit(upstream: string, metrics: Pick<RegistryMetrics, 'rateLimit'>): RateLimit {
  let counts = false;
  let savingUntil = 0;
  const gates = new Map<string, Gate>();

  function close(key: string, retryAfter: number | undefined): void {
    const blockMs = retryAfter === undefined ? DEFAULT_BLOCK_MS : Math.min(1000 * retryAfter, MAX_BLOCK_MS);
    const until = Math.max(gates.get(key)?.until ?? 0, Date.now() + blockMs);
    for (const [oldest] of gates) {
      if (gates.size < MAX_GATES || oldest === key) break;
      gates.delete(oldest);
    }
    gates.set(key, { until, probe: undefined });
  }

  async function enter(kind: LimitedKind, account: string, { signal, deadline }: Limits): Promise<(error: unknown) => void> {
    const key = `${kind} ${account}`;
    const settle = (error: unknown): void => {
      if (error instanceof OciError && error.code === 'TOOMANYREQUESTS') close(key, error.retryAfter);
    };
    let waited = 0;
    for (;;) {
      const gate = gates.get(key);
      if (gate === undefined) return settle;
      const rest = gate.until - Date.now();
      if (rest > 0) {
        waited += rest;
        if (waited > SHORT_WAIT_MS)
          throw new OciError('TOOMANYREQUESTS', `${upstream} allows no more requests for now; try again in ${Math.ceil(rest / 1000)} s`, {
            origin: 'upstream',
            retryAfter: Math.max(1, Math.ceil(rest / 1000)),
          });
        await delay(rest, undefined, { signal: AbortSignal.any([signal, deadline]) }).catch(() => signal.throwIfAborted());
      } else if (gate.probe === undefined || !(await isOver(gate.probe, signal))) return probe(key, gate, settle);
      if (deadline.aborted) throw new OciError('UNAVAILABLE', `${upstream} does not answer in time`, { origin: 'upstream' });
    }
  }

  /** Lets one request through and makes the others wait for it. */
  function probe(key: string, gate: Gate, settle: (error: unknown) => void): (error: unknown) => void {
    const over = Promise.withResolvers<void>();
    gate.probe = over.promise;
    return (error) => {
      gate.probe = undefined;
      if (gates.get(key) === gate) gates.delete(key);
      settle(error);
      over.resolve();
    };
  }

  return {
    observe(headers) {
      const remaining = readCount(headers['ratelimit-remaining']);
      if (remaining === undefined) return;
      metrics.rateLimit(upstream, remaining);
      counts = true;
      const limit = readCount(headers['ratelimit-limit']) ?? USUAL_LIMIT;
      savingUntil = remaining <= Math.max(1, limit * RESERVE) ? Date.now() + SAVING_MS : 0;
    },
    blockedUntil: () => Math.max(savingUntil, ...[...gates].filter(([key]) => key.startsWith('manifests ')).map(([, { until }]) => until)),
    countsPulls: () => counts,
    enter,
  };
}

/** For other parts of this program, which have no limits. */
export const unlimited: RateLimit = {
  observe: () => undefined,
  blockedUntil: () => 0,
  countsPulls: () => false,
  enter: () => Promise.resolve(() => undefined),
};

/** The number before the parameters of `100;w=21600`. */
function readCount(header: string | string[] | undefined): number | undefined {
  const count = Number.parseInt(String(header ?? ''), 10);
  return Number.isInteger(count) ? count : undefined;
}
