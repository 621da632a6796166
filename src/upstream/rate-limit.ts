import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';

/** What an upstream still allows, as its answers about manifests say it. Docker Hub counts each GET of a manifest as a pull, and no HEAD; its
 *  answers to both carry `ratelimit-limit: 100;w=21600` and `ratelimit-remaining`, and a 429 may carry Retry-After. */
export interface Allowance {
  /** An answer's headers. */
  told(headers: Record<string, string | string[] | undefined>): void;
  /** It answered 429, and said for how many seconds, or did not. */
  refused(retryAfter: number | undefined): void;
  /** What is known is not asked for again before this; milliseconds since the epoch. What is not known is asked for all the same: a client waits for it. */
  savingUntil(): number;
  /** It counts pulls: what a HEAD can tell is not asked by GET. */
  counts(): boolean;
}

/** Pulls that are left for images that are not here yet: this part of the limit. */
const RESERVE = 0.05;
/** Of upstreams that tell no limit. */
const USUAL_LIMIT = 100;
/** How long what is known is not asked for when few pulls are left, in ms. Then one question tells anew. */
const SAVING = 5 * 60_000;
/** The longest Retry-After that is heeded, in ms: limits end, and accounts change. */
const MAX_REFUSAL = 3_600_000;

export function createAllowance(upstream: string, metrics: Pick<RegistryMetrics, 'rateLimit'>): Allowance {
  let counts = false;
  let savingUntil = 0;
  let refusedUntil = 0;
  return {
    told(headers) {
      const remaining = readCount(headers['ratelimit-remaining']);
      if (remaining === undefined) return;
      metrics.rateLimit(upstream, remaining);
      counts = true;
      const limit = readCount(headers['ratelimit-limit']) ?? USUAL_LIMIT;
      savingUntil = remaining <= Math.max(1, limit * RESERVE) ? Date.now() + SAVING : 0;
    },
    refused(retryAfter = 0) {
      refusedUntil = Math.max(refusedUntil, Date.now() + Math.min(1000 * retryAfter, MAX_REFUSAL));
    },
    savingUntil: () => Math.max(savingUntil, refusedUntil),
    counts: () => counts,
  };
}

/** Of what has no limits: another part of this program. */
export const unlimited: Allowance = {
  told: () => undefined,
  refused: () => undefined,
  savingUntil: () => 0,
  counts: () => false,
};

/** The number before the parameters of `100;w=21600`. */
function readCount(header: string | string[] | undefined): number | undefined {
  const count = Number.parseInt(String(header ?? ''), 10);
  return Number.isInteger(count) ? count : undefined;
}
