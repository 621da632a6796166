import { createSecret } from '../../config/secret.ts';
import type { Upstream } from '../../config/schema.ts';
import { withProxyReports } from '../../http/proxy-reports.ts';
import { createTransport } from '../../http/undici-transport.ts';
import type { Upstream as UpstreamPair } from '../../cache/cache.ts';
import type { Routes } from '../../upstream/endpoint.ts';
import { upstream, type UpstreamOptions } from '../../upstream/upstream.ts';

export interface UpstreamContext {
  metrics: UpstreamOptions['metrics'];
  rateLimit: UpstreamOptions['rateLimit'];
  /** Milliseconds; 5 s by default. */
  connectTimeout?: number;
}

/** The registry that `config` describes, with its mirrors and without them. */
export function createUpstream(name: string, config: Upstream, { metrics, rateLimit, connectTimeout }: UpstreamContext): UpstreamPair {
  const { ca, proxy, mirrors, credentials } = config;
  const timeout = connectTimeout === undefined ? {} : { connectTimeout };
  const routesBy = (proxy: string): Routes => ({
    own: withProxyReports(createTransport({ proxy, ca, ...timeout }), proxy),
    outside: withProxyReports(createTransport({ proxy, ca, externalOnly: true, ...timeout }), proxy),
  });
  const options = {
    name,
    url: config.url,
    authHosts: config.authHosts,
    routes: routesBy(proxy),
    ...(proxy !== 'direct' && config.onProxyFailure === 'direct' ? { fallback: routesBy('direct') } : {}),
    credentials: credentials.map((own) => ({
      repositories: own.repositories,
      username: createSecret({ value: own.username, file: own.usernameFile }),
      password: createSecret({ value: own.password, file: own.passwordFile }),
    })),
    rateLimit,
    metrics,
  };
  const origin = upstream({ ...options, mirrors: [] });
  if (mirrors.length === 0) return { registry: origin, origin };
  const addresses = mirrors.map((mirror) => ({ url: mirror.url, routes: routesBy(mirror.proxy), credentials: [], authHosts: [] }));
  return { origin, registry: upstream({ ...options, mirrors: addresses }) };
}
