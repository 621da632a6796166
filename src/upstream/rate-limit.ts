import { setTimeout as delay } from 'node:timers/promises';
import { raceAbort } from '../async/race-abort.ts';
import { OciError } from '../oci/error.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { Limits } from './call.ts';

/** Kinds of requests that an upstream limits separately. */
export type LimitedKind = 'manifests' | 'blobs' | 'lists';

/** The rate limit of an upstream, as its answers report it. Docker Hub counts each GET of a
 *  manifest as a pull, but no HEAD; its answers to both carry `ratelimit-limit: 100;w=21600` and
 *  `ratelimit-remaining`, and a 429 may carry Retry-After. */
export interface RateLimit {
  /** Reads the headers of an answer about a manifest. */
  observe(headers: Record<string, string | string[] | undefined>): void;
  /** Cached tags are not checked upstream before this time, in ms since the epoch. Tags that are
   *  not cached are requested nevertheless: a client waits for them. */
  blockedUntil(): number;
  /** Whether the upstream counts pulls: GET is then not used where HEAD is enough. */
  countsPulls(): boolean;
  /** Call before each request. After a 429, once its Retry-After has passed, a single request goes
   *  through; the others wait for its result. If Retry-After is only a few seconds, requests wait
   *  for it.
   *  @param account the account whose limit applies
   *  @returns a function to call with the request's error, or with undefined when it succeeded
   *  @throws OciError TOOMANYREQUESTS (with the seconds that are left); the signal's reason */
  enter(kind: LimitedKind, account: string, limits: Limits): Promise<(error: unknown) => void>;
}

/** The part of the limit that is reserved for images that are not cached. */
const RESERVE = 0.05;
/** The limit that is assumed if an upstream does not announce one. */
const USUAL_LIMIT = 100;
/** How long cached tags are not checked when few pulls are left. Then one request updates the
 *  count. */
const SAVING_MS = 5 * 60_000;
/** The longest Retry-After that is honoured: limits end, and accounts change. */
const MAX_BLOCK_MS = 3_600_000;
/** The wait after a 429 without Retry-After. */
const DEFAULT_BLOCK_MS = 1000;
/** Requests wait for up to this long; longer waits fail. */
export const SHORT_WAIT_MS = 3000;

/** The limit of one account for one kind of request. */
interface Gate {
  /** Milliseconds since the epoch. */
  until: number;
  /** The request that tests whether the limit has ended. */
  probe: Promise<void> | undefined;
}

/** How long to wait for that request, which may hang. */
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

/** The most limited accounts that are remembered: clients name them. */
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
      const limit = readCount(headers['ratelimit-limit']);
      metrics.rateLimit(upstream, { remaining, limit, windowSeconds: readWindow(headers['ratelimit-limit']) });
      counts = true;
      savingUntil = remaining <= Math.max(1, (limit ?? USUAL_LIMIT) * RESERVE) ? Date.now() + SAVING_MS : 0;
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

/** The seconds after `w=` in `100;w=21600`. */
function readWindow(header: string | string[] | undefined): number | undefined {
  const [, seconds] = /;\s*w=(\d+)/.exec(String(header ?? '')) ?? [];
  return seconds === undefined ? undefined : Number(seconds);
}
