import { isIP } from 'node:net';
import { noRegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { createRateLimit, type RateLimit } from '../../upstream/rate-limit.ts';
import type { Upstream as UpstreamPair } from '../../cache/cache.ts';
import type { Upstream } from '../../config/schema.ts';
import { createUpstream, type Connections, type UpstreamContext } from './upstreams.ts';

/** An upstream of the registry: a configured one, or a host of registry.otherHosts. */
export interface KnownUpstream {
  name: string;
  config: Upstream;
  connections: Connections;
  untrusted?: boolean;
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
  untrusted: boolean;
}

/** `known`, read with `logins` alone. Its mirrors are not used: these credentials are not for them,
 *  and they must not learn which private images are pulled. */
export function createPrivateUpstream(
  { name, config, connections, untrusted = false }: KnownUpstream,
  logins: readonly Login[],
  metrics: UpstreamContext['metrics'],
): PrivateUpstream {
  // The metric of the limit is about the registry's own account.
  const rateLimit = createRateLimit(name, noRegistryMetrics);
  const authHosts = [...config.authHosts, ...neighboursOf(new URL(config.url))];
  const own = { ...config, authHosts, credentials: [...logins], mirrors: [] };
  return { config: own, rateLimit, untrusted, upstream: createUpstream(name, own, { metrics, rateLimit, connections }) };
}

/** The hosts of the registry's own domain: the token service of registry.gitlab.com is on
 *  gitlab.com. Container runtimes send a pod's credentials to any token service that the registry
 *  names. */
function neighboursOf({ hostname }: URL): string[] {
  const parent = hostname.slice(hostname.indexOf('.') + 1);
  return isIP(hostname.replace(/^\[|\]$/g, '')) === 0 && hostname !== parent && parent.includes('.') ? [parent, `*.${parent}`] : [];
}
