import { compileLabel } from './label-glob.ts';
import { parseLocation, splitHost } from './location.ts';

// Selects the entries of docker configs that match an image, by the rules of the kubelet
// (k8s.io/kubernetes/pkg/credentialprovider, BasicDockerKeyring). keyring.test.ts compares them
// with the kubelet's own answers.

/** The images that an entry matches. */
export interface Scope {
  /** The entry's key without scheme and API version, by which entries are sorted:
   *  `registry.example.com/acme`. */
  key: string;
  /** @param repository with its host and without a tag: `docker.io/library/nginx` */
  matches(this: void, repository: ImageRepository): boolean;
}

/** A repository with its host, parsed once for all comparisons. */
export interface ImageRepository {
  labels: readonly string[];
  port: string;
  path: string;
  /** Whether it is on Docker Hub. */
  isDefaultRegistry: boolean;
}

/** The key of entries for Docker Hub: `https://index.docker.io/v1/` without scheme and API
 *  version. */
const DEFAULT_REGISTRY = 'index.docker.io';
/** Longer keys match no image that exists: a name has at most 255 characters. */
const MAX_KEY_LENGTH = 1024;

/** @param key as in a docker config: `https://index.docker.io/v1/`, `*.example.com`,
 *  `registry.example.com:5000/acme`
 *  @returns undefined for a key that the kubelet ignores */
export function parseScope(key: string): Scope | undefined {
  if (key.length > MAX_KEY_LENGTH) return undefined;
  const location = parseLocation(key.replace(/^https?:\/\//, ''));
  if (location === undefined) return undefined;
  const path = /^\/v[12]\//.test(location.path) ? location.path.slice(3) : location.path;
  const effective = location.host + (path === '/' ? '' : path);
  return { key: effective, matches: matcherOf(effective) };
}

/** The kubelet parses the key a second time, after it has decoded the path once. */
function matcherOf(key: string): Scope['matches'] {
  const location = parseLocation(key);
  if (location === undefined) return () => false;
  const { labels, port } = splitHost(location.host);
  const globs = labels.map(compileLabel);
  if (globs.includes(undefined)) return () => false;
  return (image) =>
    image.port === port &&
    image.labels.length === labels.length &&
    image.path.startsWith(location.path) &&
    globs.every((glob, index) => glob?.(image.labels[index] ?? ''));
}

/** @param repository with its host and without a tag: `docker.io/library/nginx`,
 *  `registry.example.com:5000/app` */
export function parseImageRepository(repository: string): ImageRepository {
  const location = parseLocation(repository) ?? { host: '', path: '' };
  const [first = ''] = repository.split('/', 1);
  // A first component without a dot or colon counts as Docker Hub, so `localhost/app` does too.
  const isHub = first === 'docker.io' || first === DEFAULT_REGISTRY || !/[.:]/.test(first);
  return { ...splitHost(location.host), path: location.path, isDefaultRegistry: isHub };
}

/** Whether an entry alone covers the repository. */
export function covers(scope: Scope, repository: ImageRepository): boolean {
  return scope.matches(repository) || (repository.isDefaultRegistry && scope.key === DEFAULT_REGISTRY);
}

/** The entries that match an image, in the order in which the kubelet tries them: keys in
 *  descending order, so that longer paths come first; entries of one key in the order of the pod's
 *  secrets. Entries for Docker Hub are tried only if no other matches.
 *  @param entries in the order of the pod's secrets */
export function selectEntries<Entry extends { scope: Scope }>(entries: readonly Entry[], repository: ImageRepository): Entry[] {
  const matching = entries.filter(({ scope }) => scope.matches(repository));
  if (matching.length > 0) return matching.toSorted(({ scope: a }, { scope: b }) => (a.key === b.key ? 0 : a.key < b.key ? 1 : -1));
  return repository.isDefaultRegistry ? entries.filter(({ scope }) => scope.key === DEFAULT_REGISTRY) : [];
}
