import type { Registry } from '../oci/registry.ts';
import { unlimited } from './rate-limit.ts';
import { upstream, type UpstreamOptions } from './upstream.ts';

export type RemoteOptions = Pick<UpstreamOptions, 'name' | 'url' | 'way' | 'metrics' | 'limits' | 'headers' | 'trusted'>;

/** A registry of this kind elsewhere: no mirrors, no credentials, no limits of pulls, its redirects followed wherever they lead. */
export function remote(options: RemoteOptions): Registry {
  return upstream({ ...options, outside: options.way, mirrors: [], credentials: [], authHosts: [], allowance: unlimited });
}
