import type { Upstream } from '../../config/schema.ts';
import type { Registry } from '../../oci/registry.ts';
import { createAllowance } from '../../upstream/rate-limit.ts';
import { routed } from '../../registry/routed.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { createUpstream } from './upstreams.ts';

export interface DirectOptions {
  proxy: string;
  /** Milliseconds. */
  connectTimeout: number;
  metrics: RegistryMetrics;
}

/** The upstreams, mirrors first, by the agent's way out instead of the registry's, and as nobody in particular: an agent has no
 *  credentials. */
export function createDirectUpstreams(
  upstreams: Readonly<Record<string, Upstream>>,
  { proxy, connectTimeout, metrics }: DirectOptions,
): Registry {
  const routes = Object.entries(upstreams).map(([name, upstream]) => {
    const mirrors = upstream.mirrors.map((mirror) => ({ ...mirror, proxy }));
    const direct = { ...upstream, proxy, mirrors, credentials: [] };
    return [
      name,
      {
        registry: createUpstream(name, direct, { connectTimeout, metrics, allowance: createAllowance(name, metrics) }),
        defaultNamespace: upstream.defaultNamespace,
      },
    ] as const;
  });
  return routed(Object.fromEntries(routes));
}
