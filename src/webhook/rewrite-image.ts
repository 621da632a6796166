import { isDigest } from '../oci/digest.ts';
import { isRepository } from '../oci/reference.ts';

/** What an image's name says, in the grammar of github.com/distribution/reference. */
export interface ImageName {
  /** Lower and upper case as written; docker.io where none is. */
  host: string;
  /** Without the host, `library/` added where Docker Hub's short names mean it. */
  repository: string;
  /** `:tag`, `@digest`, both or nothing, as written. */
  suffix: string;
}

export interface RewriteRules {
  /** What rewritten images start with: `127.0.0.1:25000`. */
  registryHost: string;
  /** By the host that images name. */
  upstreams: ReadonlyMap<string, { name: string; defaultNamespace?: string | undefined }>;
}

const HOST =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$/;
const SUFFIX = /^(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$/;
const IDENTIFIER = /^[a-f0-9]{64}$/;
const DOCKER_HUB = 'docker.io';

/** The parts of an image's name; undefined: it is none, and containerd would refuse it too. */
export function parseImage(image: string): ImageName | undefined {
  if (IDENTIFIER.test(image)) return undefined;
  const slash = image.indexOf('/');
  const first = slash === -1 ? '' : image.slice(0, slash);
  // As the grammar's reference implementation tells a host from a path's first component.
  const named = first !== '' && (/[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase());
  const host = named ? first : DOCKER_HUB;
  const rest = named ? image.slice(slash + 1) : image;
  const end = rest.search(/[:@]/);
  const path = end === -1 ? rest : rest.slice(0, end);
  const suffix = end === -1 ? '' : rest.slice(end);
  const repository = [DOCKER_HUB, 'index.docker.io'].includes(host) && !path.includes('/') ? `library/${path}` : path;
  if (!HOST.test(host) || !isRepository(repository) || !SUFFIX.test(suffix)) return undefined;
  const digest = suffix.split('@')[1];
  return digest !== undefined && !isDigest(digest) ? undefined : { host, repository, suffix };
}

/** `image` by its way through the registry; undefined: it stays as it is, since no upstream has its host or it is no image's name.
 *  Tag and digest stay as written, and none is invented. */
export function rewriteImage(image: string, rules: RewriteRules): string | undefined {
  const parsed = parseImage(image);
  const upstream = parsed === undefined ? undefined : rules.upstreams.get(parsed.host);
  if (parsed === undefined || upstream === undefined) return undefined;
  const { defaultNamespace, name } = upstream;
  const short = defaultNamespace !== undefined && !parsed.repository.includes('/');
  const repository = `${name}/${short ? `${defaultNamespace}/` : ''}${parsed.repository}`;
  return isRepository(repository) ? `${rules.registryHost}/${repository}${parsed.suffix}` : undefined;
}
