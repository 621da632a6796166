/** The upstream of an image's host, as sent by containerd in `?ns=`. */
export function upstreamsByHost(upstreams: Readonly<Record<string, { hosts: readonly string[] }>>): (host: string) => string | undefined {
  const byHost = new Map(
    Object.entries(upstreams).flatMap(([name, { hosts }]) => hosts.map((host) => [host.toLowerCase(), name] as const)),
  );
  return (host) => byHost.get(host.toLowerCase());
}
