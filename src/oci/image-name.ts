import { isDigest } from './digest.ts';
import { createOtherHosts } from './other-hosts.ts';
import { isRepository, type Repository } from './reference.ts';

/** The parts of an image name, by the grammar of github.com/distribution/reference. */
export interface ImageName {
  /** As written, case included; `docker.io` if the name has no host. */
  host: string;
  /** The path without the host. Docker Hub's short names get their `library/`. */
  repository: string;
  /** `:tag`, `@digest`, `:tag@digest` or empty, as written. */
  suffix: string;
}

/** Under which repositories the images of a host are served. */
export interface ServedHost {
  /** The first component of their repositories: `dockerhub`, `mcr.microsoft.com`. */
  name: string;
  /** Put before names of one component. */
  defaultNamespace?: string | undefined;
}

/** The hosts that are served: those of upstreams, of hosted repositories and of
 *  registry.otherHosts. */
export interface ServedHosts {
  /** @param host as an image name spells it */
  find(this: void, host: string): ServedHost | undefined;
  /** Whether repositories with this first component are served. */
  hasName(this: void, name: string): boolean;
}

/** The parts of the configuration that determine which hosts are served. */
export interface ServedConfig {
  upstreams: Readonly<Record<string, { hosts: readonly string[]; defaultNamespace?: string | undefined }>>;
  hosted?: Readonly<Record<string, { hosts: readonly string[] }>>;
  /** As registry.otherHosts. */
  otherHosts?: readonly string[];
}

const DOCKER_HUB = 'docker.io';
const DOCKER_HUB_ALIAS = 'index.docker.io';
const LABEL = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const HOST = new RegExp(`^(?:${LABEL}(?:\\.${LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);
const SUFFIX = /^(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$/;
/** The grammar reserves 64 hexadecimal digits for image IDs. */
const IDENTIFIER = /^[a-f0-9]{64}$/;

/** @returns undefined if `image` is not an image name; containerd refuses those too */
export function parseImage(image: string): ImageName | undefined {
  if (IDENTIFIER.test(image)) return undefined;
  const slash = image.indexOf('/');
  const first = slash === -1 ? '' : image.slice(0, slash);
  // The reference implementation (splitDockerDomain) distinguishes a host from the first path
  // component by a dot, a colon, an upper-case letter or the name localhost.
  const hasHost = first !== '' && (/[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase());
  const host = hasHost ? first : DOCKER_HUB;
  const rest = hasHost ? image.slice(slash + 1) : image;
  const end = rest.search(/[:@]/);
  const path = end === -1 ? rest : rest.slice(0, end);
  const suffix = end === -1 ? '' : rest.slice(end);
  const repository = [DOCKER_HUB, DOCKER_HUB_ALIAS].includes(host) && !path.includes('/') ? `library/${path}` : path;
  if (!HOST.test(host) || !isRepository(repository) || !SUFFIX.test(suffix)) return undefined;
  const digest = suffix.split('@')[1];
  return digest !== undefined && !isDigest(digest) ? undefined : { host, repository, suffix };
}

/** The full names that a glob may match: `docker.io/library/redis` and, if the name has a tag or a
 *  digest, `docker.io/library/redis:7`. Docker Hub's alias is spelled `docker.io`. Empty if `image`
 *  is not an image name. */
export function fullNames(image: string): string[] {
  const parsed = parseImage(image);
  if (parsed === undefined) return [];
  const name = `${parsed.host === DOCKER_HUB_ALIAS ? DOCKER_HUB : parsed.host}/${parsed.repository}`;
  return parsed.suffix === '' ? [name] : [name, name + parsed.suffix];
}

export function servedHosts({ upstreams, hosted = {}, otherHosts = [] }: ServedConfig): ServedHosts {
  const others = createOtherHosts(otherHosts);
  const configured: ServedConfig['upstreams'] = { ...upstreams, ...hosted };
  const byHost = new Map<string, ServedHost>(
    Object.entries(configured).flatMap(([name, { hosts, defaultNamespace }]) =>
      hosts.map((host) => [host, { name, defaultNamespace }] as const),
    ),
  );
  return {
    find(host) {
      const known = byHost.get(host);
      if (known !== undefined) return known;
      const name = others.segmentOf(host);
      return name === undefined ? undefined : { name };
    },
    hasName: (name) => Object.hasOwn(configured, name) || others.hostOf(name) !== undefined,
  };
}

/** The repository under which this registry serves an image, such as `dockerhub/library/nginx`.
 *  @returns undefined if the host is not served, or the name would be too long */
export function servedRepository({ host, repository }: ImageName, hosts: ServedHosts): Repository | undefined {
  const served = hosts.find(host);
  if (served === undefined) return undefined;
  const { name, defaultNamespace } = served;
  const namespace = defaultNamespace !== undefined && !repository.includes('/') ? `${defaultNamespace}/` : '';
  const full = `${name}/${namespace}${repository}`;
  return isRepository(full) ? full : undefined;
}
