import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { HistoryRing } from './history.ts';
import type { UpstreamStates } from './upstream-states.ts';

/** Passes everything on to `inner`, and reports it to the console. */
export function observing(
  inner: RegistryMetrics,
  { history, upstreams }: { history: HistoryRing; upstreams: UpstreamStates },
): RegistryMetrics {
  return {
    ...inner,
    answered(upstream, answer) {
      inner.answered(upstream, answer);
      if (answer.kind === 'manifest' || answer.kind === 'blob') history.count('requests', 1);
      if (answer.bytes > 0) history.count('sentBytes', answer.bytes);
    },
    read(upstream, kind, outcome) {
      inner.read(upstream, kind, outcome);
      history.count(({ hit: 'hits', miss: 'misses', stale: 'stale', error: 'errors' } as const)[outcome], 1);
    },
    observeUpstream(upstream, outcome, seconds) {
      inner.observeUpstream(upstream, outcome, seconds);
      upstreams.asked(upstream, outcome, seconds);
      history.asked(seconds);
    },
    received(upstream, bytes) {
      inner.received(upstream, bytes);
      upstreams.received(upstream, bytes);
      history.count('upstreamBytes', bytes);
    },
    rateLimit(upstream, remaining) {
      inner.rateLimit(upstream, remaining);
      upstreams.limited(upstream, remaining);
    },
    denied(upstream, rule) {
      inner.denied(upstream, rule);
      history.count('denied', 1);
    },
  };
}
