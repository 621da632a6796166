import type { PullLimit, UpstreamOutcome } from '../telemetry/registry-metrics.ts';
import type { RateLimitReport } from './api/overview.ts';
import type { UpstreamReport } from './api/places.ts';
import { createHourCounts, type HourCounts } from './hour-counts.ts';

/** The state of the upstreams, derived from the requests to them. */
export interface UpstreamStates {
  asked(this: void, upstream: string, outcome: UpstreamOutcome, seconds: number): void;
  received(this: void, upstream: string, bytes: number): void;
  /** Pulls that the upstream still allows. */
  limited(this: void, upstream: string, limit: PullLimit): void;
  read(this: void, upstream: string): UpstreamState;
  /** The upstreams that were used since the process started. */
  names(this: void): string[];
}

export type UpstreamState = Pick<UpstreamReport, 'state' | 'lastRequestAt' | 'lastFailure' | 'latency' | 'hour'> & {
  rateLimit: Omit<RateLimitReport, 'upstream'> | null;
};

/** Limited, because clients can add upstreams by naming hosts. */
const MAX_UPSTREAMS = 200;
/** Upper bounds of the latency buckets, in ms. */
const LATENCIES = [5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10_000, 20_000, Infinity];
const BUCKETS = LATENCIES.map(String);
const STATES: Record<UpstreamOutcome, UpstreamState['state']> = {
  ok: 'up',
  absent: 'up',
  refused: 'refusing',
  limited: 'limited',
  failed: 'down',
  proxy: 'proxy-down',
};
const FAILURES: ReadonlySet<UpstreamOutcome> = new Set(['failed', 'proxy', 'limited']);

interface Known {
  counts: HourCounts<'requests' | 'failures' | 'bytes'>;
  latencies: { counts: HourCounts<string>; sumsMs: HourCounts<string> };
  last: { at: number; outcome: UpstreamOutcome } | undefined;
  lastFailure: { at: number; outcome: UpstreamOutcome } | undefined;
  rateLimit: (PullLimit & { at: number }) | undefined;
}

/** @param now ms since the epoch */
export function createUpstreamStates(now: () => number = Date.now): UpstreamStates {
  const upstreams = new Map<string, Known>();

  function find(name: string): Known | undefined {
    const known = upstreams.get(name);
    if (known !== undefined || upstreams.size >= MAX_UPSTREAMS) return known;
    const created: Known = {
      counts: createHourCounts(['requests', 'failures', 'bytes'], now),
      latencies: { counts: createHourCounts(BUCKETS, now), sumsMs: createHourCounts(BUCKETS, now) },
      last: undefined,
      lastFailure: undefined,
      rateLimit: undefined,
    };
    upstreams.set(name, created);
    return created;
  }

  return {
    asked(name, outcome, seconds) {
      const own = find(name);
      if (own === undefined) return;
      own.last = { at: now(), outcome };
      own.counts.count('requests', 1);
      if (FAILURES.has(outcome)) {
        own.lastFailure = own.last;
        own.counts.count('failures', 1);
      } else noteLatency(own, 1000 * seconds);
    },
    received: (name, bytes) => find(name)?.counts.count('bytes', bytes),
    limited(name, limit) {
      const own = find(name);
      if (own !== undefined) own.rateLimit = { ...limit, at: now() };
    },
    names: () => [...upstreams.keys()],
    read(name) {
      const own = upstreams.get(name);
      return own === undefined ? UNKNOWN : describe(own);
    },
  };
}

const UNKNOWN: UpstreamState = {
  state: 'unknown',
  lastRequestAt: null,
  lastFailure: null,
  latency: null,
  hour: { requests: 0, failures: 0, bytes: 0 },
  rateLimit: null,
};

function describe({ last, lastFailure, rateLimit, counts, latencies }: Known): UpstreamState {
  return {
    state: last === undefined ? 'unknown' : STATES[last.outcome],
    lastRequestAt: last === undefined ? null : iso(last.at),
    lastFailure: lastFailure === undefined ? null : { at: iso(lastFailure.at), outcome: lastFailure.outcome },
    latency: summarize(latencies),
    hour: counts.read(),
    rateLimit: rateLimit === undefined ? null : describeLimit(rateLimit),
  };
}

function describeLimit({ remaining, limit, windowSeconds, at }: PullLimit & { at: number }): UpstreamState['rateLimit'] {
  return { remaining, limit: limit ?? null, windowSeconds: windowSeconds ?? null, at: iso(at) };
}

function iso(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}

function noteLatency({ latencies: { counts, sumsMs } }: Known, milliseconds: number): void {
  const bucket = String(LATENCIES.find((bound) => milliseconds <= bound));
  counts.count(bucket, 1);
  sumsMs.count(bucket, milliseconds);
}

/** The mean of the bucket in which the quantile lies: its upper bound would be up to twice as
 *  much. */
function summarize(latencies: Known['latencies']): UpstreamState['latency'] {
  const [counts, sumsMs] = [latencies.counts.read(), latencies.sumsMs.read()];
  const requests = Object.values(counts).reduce((sum, own) => sum + own, 0);
  if (requests === 0) return null;
  const quantile = (share: number): number => {
    let seen = 0;
    const bucket = BUCKETS.find((name) => (seen += counts[name] ?? 0) >= share * requests) ?? '';
    return (sumsMs[bucket] ?? 0) / (counts[bucket] ?? 1);
  };
  return { p50: quantile(0.5), p95: quantile(0.95), requests };
}
