import { isPrivateComponent } from './private-name.ts';
import { isRepository, type Repository } from './reference.ts';

/** The first component of the records of images that were pulled in mirror mode with credentials of
 *  the container runtime. They keep pruning from removing these images, but give no access: no
 *  client can name such a repository. */
export const MIRRORED = 'by-mirror';

/** `dockerhub/acme/app` of `by-<ids>/dockerhub/acme/app` (see private-name.ts); every other
 *  repository is returned unchanged. */
export function withoutCapability(repository: Repository): Repository {
  if (!repository.startsWith('by-')) return repository;
  const slash = repository.indexOf('/');
  if (slash === -1 || !isPrivateComponent(repository.slice(0, slash))) return repository;
  const rest = repository.slice(slash + 1);
  return isRepository(rest) ? rest : repository;
}

/** The name of the upstream of a repository: `dockerhub` of `dockerhub/library/nginx` and of
 *  `by-<ids>/dockerhub/library/nginx`. */
export function upstreamNameOf(repository: Repository): string {
  const name = withoutCapability(repository);
  const slash = name.indexOf('/');
  return slash === -1 ? name : name.slice(0, slash);
}

/** An id is 128 bits in base 32. */
const IDS = /(?<![0-9A-Za-z-])by-[a-z2-7]{26}(?:-[a-z2-7]{26})*/g;

/** `text` without the ids in it, with which anybody may read what their pull secrets may read:
 *  `by-…/dockerhub/acme/app`. */
export function redactCapabilities(text: string): string {
  return text.includes('by-') ? text.replace(IDS, 'by-…') : text;
}
