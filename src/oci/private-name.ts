import { isRepository, type Repository } from './reference.ts';

// The names under which private images are pulled by pull secrets:
// `by-<id>/<upstream>/<repository>`. An id is a capability: any client that knows it may pull the
// images that its pull secret may pull. Several ids, joined by `-`, are tried in order, as the
// kubelet tries several secrets.

/** A repository that is pulled by pull secrets. */
export interface PrivateName {
  /** The ids of entries of pull secrets, in the order in which they are tried; at least one. */
  ids: readonly string[];
  /** The repository without the ids: `dockerhub/acme/app`. */
  repository: Repository;
}

/** 128 bits in lower-case base32 (RFC 4648, section 6). */
const ID = '[a-z2-7]{26}';
/** Limits the cost of one request: each id may cause a request to upstream. */
const MAX_IDS = 8;
const COMPONENT = new RegExp(`^by-(${ID}(?:-${ID}){0,${MAX_IDS - 1}})$`);

/** Whether a first path component is reserved for ids. No upstream may have such a name; hosts
 *  contain a dot, or end in `_<port>`. */
export function isPrivateComponent(component: string): boolean {
  return component.startsWith('by-') && !/[._]/.test(component);
}

/** @returns undefined if the repository's first component holds no ids. A component that begins
 *  with `by-` but is not well-formed is no private name either: nothing is served under it */
export function parsePrivateName(repository: string): PrivateName | undefined {
  const slash = repository.indexOf('/');
  const [, ids] = COMPONENT.exec(slash === -1 ? '' : repository.slice(0, slash)) ?? [];
  const rest = repository.slice(slash + 1);
  return ids === undefined || !isRepository(rest) ? undefined : { ids: ids.split('-'), repository: rest };
}

/** @returns undefined if there are too many ids, or the name would be longer than a repository's
 *  name may be */
export function privateName({ ids, repository }: PrivateName): Repository | undefined {
  const name = `by-${ids.join('-')}/${repository}`;
  return ids.length > 0 && ids.length <= MAX_IDS && isRepository(name) ? name : undefined;
}
