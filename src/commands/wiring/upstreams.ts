import type { Mirror, Upstream } from '../../config/schema.ts';
import { withProxyReports } from '../../http/proxy-reports.ts';
import { createTransport } from '../../http/undici-transport.ts';
import type { Log } from '../../telemetry/log.ts';
import type { Routes } from '../../upstream/sender.ts';
import { parseRegistryUrl } from '../../upstream/links.ts';
import { createCredentials } from './credentials.ts';
import { upstream, type RegistryAddress, type UpstreamOptions, type UpstreamReaders } from '../../upstream/upstream.ts';

export interface UpstreamContext {
  metrics: UpstreamOptions['metrics'];
  rateLimit: UpstreamOptions['rateLimit'];
  /** Milliseconds; 5 s by default. */
  connectTimeout?: number;
  /** Used instead of separate connections. */
  connections?: Connections;
  /** The log for failures in the background. */
  log?: Log | undefined;
}

/** The connections to an upstream, which can be shared. */
export interface Connections {
  routes: Routes;
  /** Used when a proxy fails. */
  fallback?: Routes;
}

/** The connections that `config` describes. */
export function createConnections(
  { ca, clientCertificate, proxy, onProxyFailure }: Mirror & Partial<Pick<Upstream, 'onProxyFailure'>>,
  connectTimeout?: number,
): Connections {
  const routesBy = (proxy: string): Routes => {
    const options = { proxy, ca, ...(connectTimeout === undefined ? {} : { connectTimeout }) };
    // The certificate is for the registry itself, as credentials are.
    return {
      own: withProxyReports(createTransport({ ...options, clientCertificate }), proxy),
      outside: withProxyReports(createTransport({ ...options, externalOnly: true }), proxy),
    };
  };
  return { routes: routesBy(proxy), ...(proxy !== 'direct' && onProxyFailure === 'direct' ? { fallback: routesBy('direct') } : {}) };
}

/** The registry that `config` describes, with its mirrors and without them. */
export function createUpstream(
  name: string,
  config: Upstream & { privatePrefixes?: readonly string[] },
  { metrics, rateLimit, connectTimeout, connections, log }: UpstreamContext,
): UpstreamReaders {
  const addressOf = (own: Mirror, { routes }: Connections): RegistryAddress => ({
    url: own.url,
    routes,
    authHosts: own.authHosts,
    headers: own.headers,
    ns: own.ns,
    credentials: own.credentials.map((login) => createCredentials(login, own, { upstream: name, log })),
  });
  const own = connections ?? createConnections(config, connectTimeout);
  return upstream({
    name,
    ...addressOf(config, own),
    ...(own.fallback === undefined ? {} : { fallback: own.fallback }),
    mirrors: config.mirrors.map((mirror) => addressOf(mirror, createConnections(mirror, connectTimeout))),
    privatePrefixes: config.privatePrefixes ?? prefixesOf(config),
    rateLimit,
    metrics,
  });
}

/** The repositories that credentials are for. */
export function prefixesOf({ credentials }: Pick<Upstream, 'credentials'>): string[] {
  return credentials.map(({ repositories }) => repositories);
}

/** Warns about settings that are probably mistakes. */
export function reportUpstreams(upstreams: Readonly<Record<string, Upstream>>, log: Log): void {
  for (const [name, config] of Object.entries(upstreams)) {
    for (const { url } of [config, ...config.mirrors]) {
      if (!parseRegistryUrl(url).endsInV2) continue;
      log.warn(
        { event: 'upstream-url-ends-in-v2', upstream: name, url },
        'the URL of a registry ends in /v2; ignoring this suffix, since every request adds it',
      );
    }
    const unused = config.mirrors.filter(({ credentials }) => credentials.length === 0);
    if (unused.length === 0 || !prefixesOf(config).includes('')) continue;
    log.warn(
      { event: 'upstream-mirrors-unused', upstream: name, mirrors: unused.map(({ url }) => url) },
      'mirrors without credentials are never used, since the upstream has credentials for all repositories; limit those to your own prefix',
    );
  }
}
