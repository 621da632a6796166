import type { Upstream as UpstreamPair } from '../../cache/cache.ts';
import type { RegistryConfig, Upstream } from '../../config/schema.ts';
import { createTransport } from '../../http/undici-transport.ts';
import { createExpiringCache } from '../../io/expiring-cache.ts';
import { createOtherHosts } from '../../oci/other-hosts.ts';
import type { Routes } from '../../upstream/sender.ts';
import type { RateLimit } from '../../upstream/rate-limit.ts';
import { createUpstream, type Connections, type UpstreamContext } from './upstreams.ts';

/** How many hosts stay in memory; the least recently used are dropped, and created again when
 *  needed. */
const MAX_HOSTS = 100;
const IDLE_LIFE_MS = 15 * 60_000;
/** The hosts of Google's Artifact Registry: a glob in the default, whose hosts all belong to one
 *  registry. */
const ARTIFACT_REGISTRY = '-docker.pkg.dev';

export interface HostUpstream {
  name: string;
  config: Upstream;
  upstream: UpstreamPair;
  rateLimit: RateLimit;
  connections: Connections;
  /** Anybody may run this host: see CachePolicy.untrusted. */
  untrusted: boolean;
}

export interface HostUpstreamsOptions {
  metrics: UpstreamContext['metrics'];
  createRateLimit(this: void, name: string): RateLimit;
  /** Milliseconds. */
  connectTimeout?: number;
  /** Instead of registry.proxy. */
  proxy?: string;
}

type Config = Pick<RegistryConfig, 'otherHosts' | 'proxy' | 'onProxyFailure' | 'cache'>;

/** The upstreams of registry.otherHosts, created when the first of their images is requested.
 *  @returns a function of the first component of a repository; undefined: it is not a host that is
 *  served */
export function createHostUpstreams(config: Config, options: HostUpstreamsOptions): (name: string) => HostUpstream | undefined {
  const hosts = createOtherHosts(config.otherHosts);
  const proxy = options.proxy ?? config.proxy;
  const timeout = options.connectTimeout === undefined ? {} : { connectTimeout: options.connectTimeout };
  // All hosts share the same connection pools, so thousands of hosts that are never requested again
  // leave no pools behind.
  let transports: Routes | undefined;
  const connect = (): Routes =>
    (transports ??= { own: createTransport({ proxy, ...timeout }), outside: createTransport({ proxy, externalOnly: true, ...timeout }) });
  const made = createExpiringCache<string, HostUpstream>({ max: MAX_HOSTS, ttl: IDLE_LIFE_MS, updateAgeOnGet: true });

  return (name) => {
    const known = made.get(name);
    if (known !== undefined) return known;
    const host = hosts.hostOf(name);
    if (host === undefined) return undefined;
    const own: Upstream = {
      url: `${isLoopback(host) ? 'http' : 'https'}://${host}`,
      hosts: [host],
      proxy,
      onProxyFailure: config.onProxyFailure,
      mirrors: [],
      connections: 4,
      authHosts: [],
      credentials: [],
      tagTtl: config.cache.tagTtl,
      onDeleted: 'forget',
    };
    const { own: anywhere, outside } = connect();
    const connections = { routes: { own: hosts.isNamed(host) ? anywhere : outside, outside } };
    const rateLimit = options.createRateLimit(name);
    const upstream = createUpstream(name, own, { metrics: options.metrics, rateLimit, connections, ...timeout });
    const untrusted = !hosts.isNamed(host) && !host.endsWith(ARTIFACT_REGISTRY);
    const created = { name, config: own, upstream, rateLimit, connections, untrusted };
    made.set(name, created);
    return created;
  };
}

/** Container runtimes speak plain HTTP to these as well. */
function isLoopback(host: string): boolean {
  return /^(?:localhost|127(?:\.\d{1,3}){3})(?::\d+)?$/.test(host);
}
