import { noRegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { createRateLimit, type RateLimit } from '../../upstream/rate-limit.ts';
import type { Upstream as UpstreamPair } from '../../cache/cache.ts';
import type { Upstream } from '../../config/schema.ts';
import { createUpstream, type Connections, type UpstreamContext } from './upstreams.ts';

/** An upstream of the registry: one that is configured, or a host of registry.otherHosts. */
export interface KnownUpstream {
  name: string;
  config: Upstream;
  connections: Connections;
}

/** A user name and a password for the repositories that start with `repositories`. */
interface Login {
  repositories: string;
  username: string;
  password: string;
}

export interface PrivateUpstream {
  upstream: UpstreamPair;
  config: Upstream;
  rateLimit: RateLimit;
}

/** `known`, read with `logins` alone. Its mirrors are not asked: they have no part in these
 *  credentials, and may not learn what is read with them. */
export function createPrivateUpstream(
  { name, config, connections }: KnownUpstream,
  logins: readonly Login[],
  metrics: UpstreamContext['metrics'],
): PrivateUpstream {
  // The metric of the limit is about the registry's own account.
  const rateLimit = createRateLimit(name, noRegistryMetrics);
  const own = { ...config, credentials: [...logins], mirrors: [] };
  return { config: own, rateLimit, upstream: createUpstream(name, own, { metrics, rateLimit, connections }) };
}
