import { agentsSchema, upstreamsSchema, type AgentsReport, type UpstreamReport, type WebhookReport } from '../api/places.ts';
import type { ApiHandlers } from '../api-server.ts';
import type { Nodes } from '../nodes.ts';
import type { Pods } from '../pods-service.ts';
import type { OtherReplicas } from '../replicas.ts';
import type { UpstreamStates } from '../upstream-states.ts';

/** A configured upstream. */
export type ConfiguredUpstream = Pick<UpstreamReport, 'name' | 'url' | 'hosts' | 'proxy' | 'onProxyFailure' | 'mirrors'>;
/** An image of a pod, and why it was or was not rewritten. */
export type RewriteLine = WebhookReport['images'][number];

export interface PlacesOptions {
  configured: readonly ConfiguredUpstream[];
  /** An upstream without configuration (`registry.otherHosts`), by the host of its images. */
  otherUpstream(this: void, name: string): ConfiguredUpstream;
  upstreams: UpstreamStates;
  nodes: Nodes;
  pods: Pods<RewriteLine>;
  /** The DaemonSet of the agents. */
  agents: { namespace: string; daemonSet: string } | undefined;
  /** The status reports of the webhook's processes; undefined: their address is not configured. */
  webhook: ((signal: AbortSignal) => Promise<Pick<WebhookReport, 'instances' | 'reviews'>>) | undefined;
  replicas: OtherReplicas;
}

/** The API of the registry's surroundings: upstreams, agents and the webhook. */
export function createPlacesHandlers(options: PlacesOptions): Pick<ApiHandlers, 'upstreams' | 'agents' | 'webhook'> {
  const { configured, upstreams, nodes, pods, replicas } = options;

  function ownUpstreams(): UpstreamReport[] {
    const names = new Set(configured.map(({ name }) => name));
    const others = upstreams.names().filter((name) => !names.has(name));
    return [...configured, ...others.map(options.otherUpstream)].map((own) => {
      const { rateLimit, ...state } = upstreams.read(own.name);
      return { ...own, ...state, rateLimit: rateLimit === null ? null : { upstream: own.name, ...rateLimit } };
    });
  }

  return {
    async upstreams({ alone, signal }) {
      if (alone) return { upstreams: ownUpstreams(), unreachable: [] };
      const { answers, unreachable } = await replicas.ask('/api/upstreams', upstreamsSchema, { signal });
      const merged = new Map<string, UpstreamReport>();
      for (const own of [ownUpstreams(), ...answers.map(({ answer }) => answer.upstreams)].flat()) {
        const before = merged.get(own.name);
        merged.set(own.name, before === undefined ? own : mergeUpstreams(before, own));
      }
      return { upstreams: [...merged.values()], unreachable };
    },

    async agents({ alone, signal }) {
      pods.look();
      const seen = nodes.read();
      if (alone) return { nodes: seen.map((own) => ({ ...own, agent: 'unknown' as const })), problem: null, unreachable: [] };
      const { answers, unreachable } = await replicas.ask('/api/agents', agentsSchema, { signal });
      await pods.settled();
      return { ...describeNodes([...seen, ...answers.flatMap(({ answer }) => answer.nodes)], options), unreachable };
    },

    async webhook({ query, signal }) {
      pods.look();
      const [own] = await Promise.all([options.webhook?.(signal), pods.settled()]);
      const words = query.search
        .toLowerCase()
        .split(/\s+/)
        .filter((word) => word !== '');
      const lines = pods.lines();
      const matching = lines.filter((line) => isWanted(line, query.rewritten) && words.every((word) => textOf(line).includes(word)));
      return {
        enabled: options.webhook !== undefined,
        instances: own?.instances ?? [],
        reviews: own?.reviews ?? [],
        problem: pods.problem() ?? null,
        takenAt: pods.takenAt()?.toISOString() ?? null,
        reasons: countReasons(lines),
        images: matching.slice(query.offset, query.offset + query.limit),
        total: matching.length,
        offset: query.offset,
      };
    },
  };
}

function mergeUpstreams(one: UpstreamReport, other: UpstreamReport): UpstreamReport {
  const latest = (one.lastRequestAt ?? '') >= (other.lastRequestAt ?? '') ? one : other;
  const failure = (one.lastFailure?.at ?? '') >= (other.lastFailure?.at ?? '') ? one.lastFailure : other.lastFailure;
  const busiest = (one.latency?.requests ?? 0) >= (other.latency?.requests ?? 0) ? one.latency : other.latency;
  const sum = (field: keyof UpstreamReport['hour']) => one.hour[field] + other.hour[field];
  return {
    ...one,
    state: latest.state,
    lastRequestAt: latest.lastRequestAt,
    lastFailure: failure,
    latency: busiest === null ? null : { ...busiest, requests: (one.latency?.requests ?? 0) + (other.latency?.requests ?? 0) },
    hour: { requests: sum('requests'), failures: sum('failures'), bytes: sum('bytes') },
    rateLimit: latest.rateLimit ?? one.rateLimit ?? other.rateLimit,
  };
}

type Seen = Omit<AgentsReport['nodes'][number], 'agent'>;

function describeNodes(seen: readonly Seen[], { agents, pods }: PlacesOptions): Omit<AgentsReport, 'unreachable'> {
  const merged = new Map<string, Seen>();
  for (const own of seen) {
    const before = merged.get(own.node);
    merged.set(own.node, before === undefined ? own : mergeNodes(before, own));
  }
  const ready = new Map<string, boolean>();
  if (agents !== undefined) {
    const owner = `DaemonSet/${agents.daemonSet}`;
    for (const pod of pods.pods()) {
      if (pod.namespace === agents.namespace && pod.owner === owner && pod.node !== '')
        ready.set(pod.node, pod.ready || ready.get(pod.node) === true);
    }
  }
  const silent = [...ready.keys()].filter((node) => !merged.has(node));
  const unseen = silent.map((node) => ({ node, address: '', lastSeen: null, hour: { pulls: 0, bytes: 0, errors: 0 } }));
  return {
    nodes: [...merged.values(), ...unseen].slice(0, 5000).map((own) => {
      const isReady = ready.get(own.node);
      return { ...own, agent: isReady === undefined ? 'unknown' : isReady ? 'ready' : 'not-ready' };
    }),
    problem: agents === undefined ? null : (pods.problem() ?? null),
  };
}

function mergeNodes(one: Seen, other: Seen): Seen {
  const sum = (field: keyof Seen['hour']) => one.hour[field] + other.hour[field];
  const latest = (one.lastSeen ?? '') >= (other.lastSeen ?? '') ? one : other;
  return { ...latest, hour: { pulls: sum('pulls'), bytes: sum('bytes'), errors: sum('errors') } };
}

function isWanted({ reason }: RewriteLine, rewritten: 'all' | 'yes' | 'no'): boolean {
  return rewritten === 'all' || (rewritten === 'yes') === (reason === 'rewritten');
}

function textOf({ namespace, pod, container, image, original }: RewriteLine): string {
  return `${namespace} ${pod} ${container} ${image} ${original ?? ''}`.toLowerCase();
}

function countReasons(lines: readonly RewriteLine[]): WebhookReport['reasons'] {
  const reasons = new Map<string, WebhookReport['reasons'][number]>();
  for (const { reason, text } of lines) {
    const known = reasons.get(reason) ?? { reason, text, images: 0 };
    known.images++;
    reasons.set(reason, known);
  }
  return [...reasons.values()].sort((one, other) => other.images - one.images);
}
