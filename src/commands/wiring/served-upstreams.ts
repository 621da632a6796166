import type { CachePolicy } from '../../cache/cached.ts';
import type { RegistryConfig } from '../../config/schema.ts';
import type { Log } from '../../telemetry/log.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { createRateLimit, type RateLimit } from '../../upstream/rate-limit.ts';
import { createHostUpstreams, type HostUpstream } from './other-hosts.ts';
import { createConnections, createUpstream } from './upstreams.ts';

/** The upstreams of a registry, by the first component of a repository. */
export interface ServedUpstreams {
  configured: readonly HostUpstream[];
  /** One of registry.upstreams, or a host of registry.otherHosts. */
  find(this: void, name: string): HostUpstream | undefined;
  /** A host of registry.otherHosts. */
  findHost(this: void, name: string): HostUpstream | undefined;
}

export function createServedUpstreams(own: RegistryConfig, { counts, log }: { counts: RegistryMetrics; log: Log }): ServedUpstreams {
  const configured = Object.entries(own.upstreams).map(([name, config]) => {
    const rateLimit = createRateLimit(name, counts);
    const connections = createConnections(config);
    const upstream = createUpstream(name, config, { metrics: counts, rateLimit, connections, log });
    return { name, config, upstream, rateLimit, connections, untrusted: false };
  });
  const byName = new Map<string, HostUpstream>(configured.map((upstream) => [upstream.name, upstream]));
  const findHost = createHostUpstreams(own, { metrics: counts, createRateLimit: (name) => createRateLimit(name, counts) });
  return { configured, findHost, find: (name) => byName.get(name) ?? findHost(name) };
}

/** How long, and for whom, answers of an upstream are cached. */
export function cachePolicyOf(
  name: string,
  { config, rateLimit, untrusted }: Pick<HostUpstream, 'config' | 'rateLimit' | 'untrusted'>,
  { staleFor, negativeTtl }: Pick<RegistryConfig['cache'], 'staleFor' | 'negativeTtl'>,
): CachePolicy & { rateLimit: RateLimit } {
  const { connections, tagTtl, onDeleted, credentials } = config;
  const credentialed = (repository: string): boolean => credentials.some((own) => repository.startsWith(`${name}/${own.repositories}`));
  return { name, connections, tagTtl, onDeleted, rateLimit, staleFor, negativeTtl, credentialed, untrusted };
}
