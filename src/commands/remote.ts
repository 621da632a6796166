import type { Registry } from '../oci/registry.ts';
import { unlimited } from '../registry/allowance.ts';
import { upstream, type UpstreamOptions } from '../registry/upstream.ts';

/** A registry of this kind elsewhere: no mirrors, no credentials, its redirects followed wherever they lead, its failures told in its own
 *  words. */
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
    trusted: true,
    metrics,
    ...(limits === undefined ? {} : { limits }),
  });
}
