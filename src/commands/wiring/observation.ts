import { createRefusals, type Refusals } from '../../console/handlers/rules.ts';
import { createHistory, type HistoryRing } from '../../console/history.ts';
import { createNodes, type Nodes } from '../../console/nodes.ts';
import { createUpstreamStates, type UpstreamStates } from '../../console/upstream-states.ts';
import type { Served } from '../../server/serve-registry.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';

/** The traffic since the process started, for the console. */
export interface Observation {
  startedAt: Date;
  history: HistoryRing;
  upstreams: UpstreamStates;
  nodes: Nodes;
  refusals: Refusals;
  /** Blobs in the local tier that wait for their upload. */
  waiting: { blobs: number; bytes: number };
  localBytes: number;
  /** `inner`, observed. */
  metrics(this: void, inner: RegistryMetrics): RegistryMetrics;
  served(this: void, served: Served): void;
}

export function createObservation(): Observation {
  const history = createHistory();
  const upstreams = createUpstreamStates();
  const nodes = createNodes();
  const observation: Observation = {
    startedAt: new Date(),
    history,
    upstreams,
    nodes,
    refusals: createRefusals(),
    waiting: { blobs: 0, bytes: 0 },
    localBytes: 0,
    metrics(inner) {
      const observed = observing(inner, { history, upstreams });
      return {
        ...observed,
        uploadQueue(blobs, bytes) {
          observed.uploadQueue(blobs, bytes);
          observation.waiting = { blobs, bytes };
        },
        localTier(bytes) {
          observed.localTier(bytes);
          observation.localBytes = bytes;
        },
      };
    },
    served(served) {
      if (served.kind !== 'manifest' && served.kind !== 'blob') return;
      nodes.served(served);
      if (served.kind === 'manifest' && served.outcome !== 'gone') history.answered(served.seconds);
    },
  };
  return observation;
}

const FIELD_OF = { hit: 'hits', miss: 'misses', stale: 'stale', error: 'errors' } as const;

/** Passes everything on to `inner`, and reports it to the console. */
function observing(inner: RegistryMetrics, { history, upstreams }: { history: HistoryRing; upstreams: UpstreamStates }): RegistryMetrics {
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
    rateLimit(upstream, limit) {
      inner.rateLimit(upstream, limit);
      upstreams.limited(upstream, limit);
    },
    denied(upstream, rule) {
      inner.denied(upstream, rule);
      history.now().denied++;
    },
  };
}
