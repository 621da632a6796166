import { createExpiringCache } from '../io/expiring-cache.ts';

/** Connections beside the first one of each download, shared by all downloads. */
export interface HelperBudget {
  /** The helpers of one upstream. */
  of(upstream: string): Helpers;
}

export interface Helpers {
  /** Takes one connection, and returns a function that gives it back. Undefined: no connection is
   *  free, or helpers have recently failed at this upstream. */
  take(): (() => void) | undefined;
  /** Call it when a helper has failed where the first connection works: this upstream then gets no
   *  helpers for a while. */
  discourage(): void;
  /** The speed of one connection to this upstream, if additional connections have recently made
   *  downloads faster. */
  pace(): Pace | undefined;
  learn(pace: Pace): void;
  /** Whether this process itself is the bottleneck, so that more connections would not help. */
  isBusy(): boolean;
}

/** The speed of one connection. */
export interface Pace {
  /** Bytes per millisecond. */
  rate: number;
  roundTripMs: number;
}

export interface HelperBudgetOptions {
  max: number;
  /** The number of running downloads. Each of them leaves one helper fewer: many downloads use the
   *  network fully anyway, and every connection takes about 256 KiB. */
  running(this: void): number;
}

/** How long an upstream gets no helpers after one has failed, in ms. */
const DISCOURAGED_MS = 120_000;
/** How long the speed of an upstream is remembered, in ms. */
const PACE_LIFE_MS = 600_000;
/** How many upstreams' speeds are remembered. */
const MAX_PACES = 1000;

export function createHelperBudget({ max, running }: HelperBudgetOptions): HelperBudget {
  const isBusy = createEventLoopLoad();
  const discouragedUntil = new Map<string, number>();
  const paces = createExpiringCache<string, Pace>({ max: MAX_PACES, ttl: PACE_LIFE_MS });
  let free = max;
  return {
    of: (upstream) => ({
      pace: () => paces.get(upstream),
      learn: (pace) => void paces.set(upstream, pace),
      take() {
        if (free <= running() || performance.now() < (discouragedUntil.get(upstream) ?? 0)) return undefined;
        free--;
        return () => void free++;
      },
      discourage() {
        discouragedUntil.set(upstream, performance.now() + DISCOURAGED_MS);
        paces.delete(upstream);
      },
      isBusy,
    }),
  };
}

/** A process is busy if its event loop is active for more than this share of the time. */
const BUSY_SHARE = 0.75;
/** The shortest period over which the load is measured, in ms. */
const MIN_PERIOD_MS = 40;

/** @returns a function that reports whether this process itself is the bottleneck: whether its event
 *  loop has been busy since the previous call */
export function createEventLoopLoad(): () => boolean {
  let seen = performance.eventLoopUtilization();
  let busy = false;
  return () => {
    const now = performance.eventLoopUtilization();
    const { active, idle, utilization } = performance.eventLoopUtilization(now, seen);
    if (active + idle < MIN_PERIOD_MS) return busy;
    seen = now;
    busy = utilization > BUSY_SHARE;
    return busy;
  };
}
