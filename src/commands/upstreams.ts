import { createSecret } from '../config/secret.ts';
import type { Upstream } from '../config/schema.ts';
import { unlimited } from '../registry/allowance.ts';
import { createWay } from '../registry/dispatcher.ts';
import { upstream, type UpstreamOptions } from '../registry/upstream.ts';
import type { Registry } from '../oci/registry.ts';

export interface UpstreamContext {
  metrics: UpstreamOptions['metrics'];
  allowance: UpstreamOptions['allowance'];
  /** Milliseconds; absent: the usual. */
  connectTimeout?: number;
}

/** The registry that `config` describes, with its ways out. */
export function createUpstream(name: string, config: Upstream, { metrics, allowance, connectTimeout }: UpstreamContext): Registry {
  const { ca, proxy, mirrors, credentials } = config;
  const timeout = connectTimeout === undefined ? {} : { connectTimeout };
  const ways = (proxy: string) => ({
    way: createWay({ proxy, ca, ...timeout }),
    outside: createWay({ proxy, ca, externalOnly: true, ...timeout }),
  });
  return upstream({
    name,
    url: config.url,
    authHosts: config.authHosts,
    ...ways(proxy),
    ...(proxy !== 'direct' && config.onProxyFailure === 'direct' ? { fallback: ways('direct') } : {}),
    mirrors: mirrors.map((mirror) => ({ url: mirror.url, ...ways(mirror.proxy) })),
    credentials: credentials.map((own) => ({
      repositories: own.repositories,
      username: createSecret({ value: own.username, file: own.usernameFile }),
      password: createSecret({ value: own.password, file: own.passwordFile }),
    })),
    allowance,
    metrics,
  });
}

/** A registry of this kind elsewhere: no mirrors, no credentials, its redirects followed wherever they lead. */
export function createRemote(url: string, { way, metrics, limits }: Pick<UpstreamOptions, 'way' | 'metrics' | 'limits'>): Registry {
  return upstream({
    name: 'registry',
    url,
    way,
    outside: way,
    mirrors: [],
    credentials: [],
    authHosts: [],
    allowance: unlimited,
    metrics,
    ...(limits === undefined ? {} : { limits }),
  });
}

/** Which upstream an image's host means: what containerd puts into `?ns=`. */
export function upstreamsByHost(upstreams: Record<string, Upstream>): (host: string) => string | undefined {
  const byHost = new Map(Object.entries(upstreams).flatMap(([name, { hosts }]) => hosts.map((host) => [host, name] as const)));
  return (host) => byHost.get(host);
}
