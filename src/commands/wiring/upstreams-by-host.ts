/** Which upstream an image's host means: what containerd puts into `?ns=`. */
export function upstreamsByHost(upstreams: Readonly<Record<string, { hosts: readonly string[] }>>): (host: string) => string | undefined {
  const byHost = new Map(
    Object.entries(upstreams).flatMap(([name, { hosts }]) => hosts.map((host) => [host.toLowerCase(), name] as const)),
  );
  return (host) => byHost.get(host.toLowerCase());
}
