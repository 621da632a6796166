import type { RegistryConfig } from '../../config/schema.ts';
import { OciError } from '../../oci/error.ts';
import { isPrivateComponent } from '../../oci/private-name.ts';
import type { Registry } from '../../oci/registry.ts';
import { routed, type Route } from '../../registry/routed.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';
import { createRateLimit } from '../../upstream/rate-limit.ts';
import { createHostUpstreams } from './other-hosts.ts';
import { createGuard } from './policy.ts';
import { createUpstream, prefixesOf } from './upstreams.ts';

export interface DirectOptions {
  proxy: string;
  /** Milliseconds. */
  connectTimeout: number;
  metrics: RegistryMetrics;
}

/** The upstreams with their mirrors, and the other hosts, reached through the agent's own proxy
 *  instead of the registry's, and anonymously: an agent has no credentials. */
export function createDirectUpstreams(config: RegistryConfig, { proxy, connectTimeout, metrics }: DirectOptions): Registry {
  const guard = createGuard(config, { storage: undefined, refused: ({ repository, kind }) => metrics.denied(firstOf(repository), kind) });
  const routes = Object.entries(config.upstreams).map(([name, upstream]) => {
    const anonymous = { proxy, credentials: [], clientCertificate: undefined };
    const mirrors = upstream.mirrors.map((mirror) => ({ ...mirror, ...anonymous }));
    const direct = { ...upstream, ...anonymous, mirrors, privatePrefixes: prefixesOf(upstream) };
    const { registry } = createUpstream(name, direct, { connectTimeout, metrics, rateLimit: createRateLimit(name, metrics) });
    return [name, { registry: guard(registry, name), defaultNamespace: upstream.defaultNamespace }] as const;
  });
  const hosted = Object.keys(config.hosted).map(
    (name) => [name, { registry: unavailable(`the registry does not answer, and only it has the repositories of ${name}`) }] as const,
  );
  const hostUpstream = createHostUpstreams(config, {
    proxy,
    connectTimeout,
    metrics,
    createRateLimit: (name) => createRateLimit(name, metrics),
  });
  function otherwise(name: string): Route | undefined {
    if (isPrivateComponent(name))
      return { registry: unavailable('the registry does not answer, and only it has the pull secrets; try again') };
    const host = hostUpstream(name);
    return host === undefined ? undefined : { registry: guard(host.upstream.registry, name) };
  }
  return routed(Object.fromEntries([...routes, ...hosted]), { otherwise, defaultName: config.defaultUpstream });
}

function firstOf(repository: string): string {
  return repository.slice(0, repository.indexOf('/'));
}

/** Fails every read: only the registry could answer, and it is down. */
function unavailable(message: string): Registry {
  const refuse = (): Promise<never> => Promise.reject(new OciError('UNAVAILABLE', message, { retryAfter: 5 }));
  return {
    resolve: refuse,
    manifest: refuse,
    stat: refuse,
    blob: refuse,
    async *tags() {
      yield await refuse();
    },
    referrers: refuse,
  };
}
