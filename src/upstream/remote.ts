import type { Transport } from '../http/transport.ts';
import type { Registry } from '../oci/registry.ts';
import { unlimited } from './rate-limit.ts';
import { upstream, type UpstreamOptions } from './upstream.ts';

export type RemoteOptions = Pick<UpstreamOptions, 'name' | 'url' | 'metrics' | 'limits' | 'headers'> & { transport: Transport };

/** A registry that is another part of this program: no mirrors, no credentials and no pull limits,
 *  and redirects are followed to any address. */
export function remote({ transport, ...options }: RemoteOptions): Registry {
  const routes = { own: transport, outside: transport };
  const { registry } = upstream({ ...options, routes, mirrors: [], credentials: [], authHosts: [], rateLimit: unlimited, trusted: true });
  return registry;
}
