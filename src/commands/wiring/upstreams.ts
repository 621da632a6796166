import { createSecret } from '../../config/secret.ts';
import type { Upstream } from '../../config/schema.ts';
import { createTransport } from '../../http/undici-transport.ts';
import { upstream, type UpstreamOptions } from '../../upstream/upstream.ts';
import type { Registry } from '../../oci/registry.ts';

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
    way: createTransport({ proxy, ca, ...timeout }),
    outside: createTransport({ proxy, ca, externalOnly: true, ...timeout }),
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
