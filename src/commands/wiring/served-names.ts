import type { RegistryConfig } from '../../config/schema.ts';
import { servedHosts } from '../../oci/image-name.ts';
import type { ServeOptions } from '../../server/serve-registry.ts';
import { upstreamsByHost } from './upstreams-by-host.ts';

type Served = Pick<RegistryConfig, 'upstreams' | 'hosted' | 'otherHosts' | 'defaultUpstream'>;

/** The names of the upstreams, for the server: by the first component of a repository, and by the
 *  host of an image. */
export function servedNames(config: Served): Pick<ServeOptions, 'nameOf' | 'upstreamOf'> {
  const hosts = servedHosts(config);
  const configured = upstreamsByHost({ ...config.upstreams, ...config.hosted });
  return {
    nameOf: (first) => (hosts.hasName(first) ? first : config.defaultUpstream),
    upstreamOf: (host) => configured(host) ?? hosts.find(host)?.name,
  };
}
