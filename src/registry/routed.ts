import { OciError } from '../oci/error.ts';
import { isPrivateComponent } from '../oci/private-name.ts';
import { parseRepository, type Repository } from '../oci/reference.ts';
import type { Registry } from '../oci/registry.ts';

export interface Route {
  registry: Registry;
  /** Put before names of one component: nginx → library/nginx. */
  defaultNamespace?: string | undefined;
}

export interface RoutedOptions {
  /** Asked for names that `routes` does not have. */
  otherwise?(this: void, name: string): Route | undefined;
  /** The route of repositories whose first component is neither a name nor contains ids of pull
   *  secrets. */
  defaultName?: string | undefined;
}

/** The registry whose repositories are `<name>/<repository>`, each read from the route of that
 *  name.
 *  @throws OciError NAME_UNKNOWN: no such route */
export function routed(routes: Record<string, Route>, { otherwise, defaultName }: RoutedOptions = {}): Registry {
  const byName = new Map(Object.entries(routes));
  const fallback = defaultName === undefined ? undefined : byName.get(defaultName);

  function find(prefixed: Repository): { registry: Registry; repository: Repository } {
    const slash = prefixed.indexOf('/');
    const name = slash < 0 ? prefixed : prefixed.slice(0, slash);
    const named = byName.get(name) ?? otherwise?.(name);
    const route = named ?? (isPrivateComponent(name) ? undefined : fallback); // no upstream may learn ids
    if (route === undefined || (named !== undefined && slash < 0)) {
      const wrong = route === undefined ? `no upstream is named ${name}` : `${name} is an upstream; the repository is missing`;
      throw new OciError('NAME_UNKNOWN', `${wrong}: pull <upstream>/<repository> with one of ${[...byName.keys()].join(', ')}`);
    }
    const rest = named === undefined ? prefixed : (prefixed.slice(slash + 1) as Repository);
    const isShort = route.defaultNamespace !== undefined && !rest.includes('/');
    return { registry: route.registry, repository: isShort ? parseRepository(`${route.defaultNamespace}/${rest}`) : rest };
  }

  return {
    async resolve(repository, reference, context) {
      const at = find(repository);
      return at.registry.resolve(at.repository, reference, context);
    },
    async manifest(repository, reference, context) {
      const at = find(repository);
      return at.registry.manifest(at.repository, reference, context);
    },
    async stat(repository, digest, context) {
      const at = find(repository);
      return at.registry.stat(at.repository, digest, context);
    },
    async blob(repository, digest, context) {
      const at = find(repository);
      return at.registry.blob(at.repository, digest, context);
    },
    async *tags(repository, context) {
      const at = find(repository);
      yield* at.registry.tags(at.repository, context);
    },
    async referrers(repository, digest, context) {
      const at = find(repository);
      return at.registry.referrers(at.repository, digest, context);
    },
  };
}
