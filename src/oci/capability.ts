import { isRepository, type Repository } from './reference.ts';

// The first component of a repository may say with whose credentials its upstream is asked:
// `by-<ids>/dockerhub/acme/app` is dockerhub/acme/app, read with the pull secrets that the ids stand
// for. Whoever knows the ids may read what the secrets may read: they must not appear in logs above
// level debug, in metrics, or in lists.

const PREFIX = 'by-';

/** The first component of the records of images that were pulled in mirror mode with credentials of
 *  the container runtime. They keep pruning from removing these images, and open nothing: no client
 *  can name such a repository. */
export const MIRRORED = 'by-mirror';

/** `dockerhub/acme/app` of `by-<ids>/dockerhub/acme/app`; every other repository is returned as it is. */
export function withoutCapability(repository: Repository): Repository {
  if (!repository.startsWith(PREFIX)) return repository;
  const rest = repository.slice(repository.indexOf('/') + 1);
  return isRepository(rest) ? rest : repository;
}

/** The name of the upstream of a repository: `dockerhub` of `dockerhub/library/nginx` and of
 *  `by-<ids>/dockerhub/library/nginx`. */
export function upstreamNameOf(repository: Repository): string {
  return withoutCapability(repository).split('/', 1)[0] ?? '';
}

/** An id is 128 bits in base 32. */
const IDS = /(?<![0-9A-Za-z-])by-[a-z2-7]{26}(?:-[a-z2-7]{26})*/g;

/** `text` without the ids in it: `by-…/dockerhub/acme/app`. */
export function redactCapabilities(text: string): string {
  return text.includes(PREFIX) ? text.replace(IDS, `${PREFIX}…`) : text;
}
