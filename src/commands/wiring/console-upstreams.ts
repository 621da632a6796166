import type { ConfiguredUpstream } from '../../console/handlers/places.ts';
import type { RegistryConfig } from '../../config/schema.ts';

/** The configured upstreams, for the console: without passwords. */
export function configuredUpstreams({ upstreams }: Pick<RegistryConfig, 'upstreams'>): ConfiguredUpstream[] {
  return Object.entries(upstreams).map(([name, { url, hosts, proxy, onProxyFailure, mirrors }]) => ({
    name,
    url,
    hosts,
    proxy: withoutPassword(proxy),
    onProxyFailure,
    mirrors: mirrors.map((mirror) => ({ url: mirror.url, proxy: withoutPassword(mirror.proxy) })),
  }));
}

/** A host of registry.otherHosts. */
export function otherUpstream({
  proxy,
  onProxyFailure,
}: Pick<RegistryConfig, 'proxy' | 'onProxyFailure'>): (name: string) => ConfiguredUpstream {
  return (name) => {
    const host = name.replace(/_(\d+)$/, ':$1');
    return { name, url: `https://${host}`, hosts: [host], proxy: withoutPassword(proxy), onProxyFailure, mirrors: [] };
  };
}

function withoutPassword(proxy: string): string {
  if (!URL.canParse(proxy)) return proxy;
  const { protocol, host } = new URL(proxy);
  return `${protocol}//${host}`;
}
