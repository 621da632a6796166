import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { HistoryRing } from './history.ts';
import type { UpstreamStates } from './upstream-states.ts';

const FIELD_OF = { hit: 'hits', miss: 'misses', stale: 'stale', error: 'errors' } as const;

/** Passes everything on to `inner`, and reports it to the console. */
export function observing(
  inner: RegistryMetrics,
  { history, upstreams }: { history: HistoryRing; upstreams: UpstreamStates },
): RegistryMetrics {
  return {
    ...inner,
    answered(upstream, answer) {
      inner.answered(upstream, answer);
      const counts = history.now();
      if (answer.kind === 'manifest' || answer.kind === 'blob') counts.requests++;
      counts.sentBytes += answer.bytes;
    },
    read(upstream, kind, outcome) {
      inner.read(upstream, kind, outcome);
      history.now()[FIELD_OF[outcome]]++;
    },
    observeUpstream(upstream, outcome, seconds) {
      inner.observeUpstream(upstream, outcome, seconds);
      upstreams.asked(upstream, outcome, seconds);
      history.asked(seconds);
    },
    received(upstream, bytes) {
      inner.received(upstream, bytes);
      upstreams.received(upstream, bytes);
      history.now().upstreamBytes += bytes;
    },
    rateLimit(upstream, remaining) {
      inner.rateLimit(upstream, remaining);
      upstreams.limited(upstream, remaining);
    },
    denied(upstream, rule) {
      inner.denied(upstream, rule);
      history.now().denied++;
    },
  };
}
