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

const MAX_PORT = 65_535;

/** What is wrong with a name that has no route; for a host, also how it gets one. */
function unknownName(name: string): string {
  const [, port] = /_(\d+)$/.exec(name) ?? [];
  if (port !== undefined && !(Number(port) >= 1 && Number(port) <= MAX_PORT && !port.startsWith('0')))
    return `${name} has no valid port; write <host>_<port> with a port from 1 to ${MAX_PORT}. As an upstream`;
  const advice = `; registry.otherHosts lists no such host: add it there, without a glob if it is an address or an internal name. As an upstream`;
  return `no upstream is named ${name}${port !== undefined || name.includes('.') ? advice : ''}`;
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
      const wrong = route === undefined ? unknownName(name) : `${name} is an upstream; the repository is missing`;
      throw new OciError('NAME_UNKNOWN', `${wrong}: pull <upstream>/<repository> with one of ${[...byName.keys()].join(', ')}`);
    }
    const rest = named === undefined ? prefixed : (prefixed.slice(slash + 1) as Repository);
    const isShort = route.defaultNamespace !== undefined && !rest.includes('/');
    return { registry: route.registry, repository: isShort ? parseRepository(`${route.defaultNamespace}/${rest}`) : rest };
  }

  /** Not an async function, which would delay each answer by three turns of the microtask queue. */
  function onRoute<Answer>(prefixed: Repository, read: (registry: Registry, repository: Repository) => Promise<Answer>): Promise<Answer> {
    try {
      const { registry, repository } = find(prefixed);
      return read(registry, repository);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  return {
    resolve: (prefixed, reference, context) =>
      onRoute(prefixed, (registry, repository) => registry.resolve(repository, reference, context)),
    manifest: (prefixed, reference, context) =>
      onRoute(prefixed, (registry, repository) => registry.manifest(repository, reference, context)),
    stat: (prefixed, digest, context) => onRoute(prefixed, (registry, repository) => registry.stat(repository, digest, context)),
    blob: (prefixed, digest, context) => onRoute(prefixed, (registry, repository) => registry.blob(repository, digest, context)),
    async *tags(prefixed, context) {
      const { registry, repository } = find(prefixed);
      yield* registry.tags(repository, context);
    },
    referrers: (prefixed, digest, context) => onRoute(prefixed, (registry, repository) => registry.referrers(repository, digest, context)),
  };
}
