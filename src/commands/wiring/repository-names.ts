import type { RegistryConfig } from '../../config/schema.ts';
import { createOtherHosts } from '../../oci/other-hosts.ts';
import { withoutCapability } from '../../oci/capability.ts';
import type { Repository } from '../../oci/reference.ts';

type Named = {
  upstreams: Readonly<Record<string, { hosts: readonly string[] }>>;
  hosted: Readonly<Record<string, { hosts: readonly string[] }>>;
} & Pick<RegistryConfig, 'otherHosts'>;

/** The names of a repository other than the one under which it is served: `docker.io/library/nginx`
 *  of `dockerhub/library/nginx`. The first one is the usual name. */
export function createRepositoryNames({ upstreams, hosted, otherHosts }: Named): (repository: Repository) => readonly string[] {
  const hosts = new Map(Object.entries({ ...upstreams, ...hosted }).map(([name, own]) => [name, own.hosts]));
  const others = createOtherHosts(otherHosts);

  return (given) => {
    const repository = withoutCapability(given);
    const slash = repository.indexOf('/');
    const [name, rest] = [repository.slice(0, slash), repository.slice(slash)];
    const other = hosts.has(name) ? undefined : others.hostOf(name);
    return [...(hosts.get(name) ?? []), ...(other === undefined ? [] : [other])].map((host) => host + rest);
  };
}
