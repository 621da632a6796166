import type { Upstream } from '../../config/schema.ts';
import type { Registry } from '../../oci/registry.ts';
import { routed } from '../../registry/routed.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { createRateLimit } from '../../upstream/rate-limit.ts';
import { createUpstream, prefixesOf } from './upstreams.ts';

export interface DirectOptions {
  proxy: string;
  /** Milliseconds. */
  connectTimeout: number;
  metrics: RegistryMetrics;
}

/** The upstreams with their mirrors, reached through the agent's own proxy instead of the registry's, and anonymously: an agent has no
 *  credentials. */
export function createDirectUpstreams(
  upstreams: Readonly<Record<string, Upstream>>,
  { proxy, connectTimeout, metrics }: DirectOptions,
): Registry {
  const routes = Object.entries(upstreams).map(([name, upstream]) => {
    const anonymous = { proxy, credentials: [], clientCertificate: undefined };
    const mirrors = upstream.mirrors.map((mirror) => ({ ...mirror, ...anonymous }));
    const direct = { ...upstream, ...anonymous, mirrors, privatePrefixes: prefixesOf(upstream) };
    const { registry } = createUpstream(name, direct, { connectTimeout, metrics, rateLimit: createRateLimit(name, metrics) });
    return [name, { registry, defaultNamespace: upstream.defaultNamespace }] as const;
  });
  return routed(Object.fromEntries(routes));
}
