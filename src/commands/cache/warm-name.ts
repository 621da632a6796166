import { isDigest } from '../../oci/digest.ts';
import { parseReference, parseRepository, type Reference, type Repository } from '../../oci/reference.ts';
import { parseImage, rewriteImage, type RewriteRules } from '../../webhook/rewrite-image.ts';

/** An image as the registry names it. */
export interface WarmName {
  /** With the upstream in front: dockerhub/library/nginx. */
  repository: Repository;
  reference: Reference;
}

const LOOPBACK = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?$/;

/** What an image is to the registry, however its name is written: `nginx`, `ghcr.io/a/b:1@sha256:…`, or rewritten already. A digest is
 *  preferred to a tag, as container runtimes do; neither means `latest`. Undefined: no upstream has its host, or it is no image's name. */
export function parseWarmName(image: string, rules: RewriteRules): WarmName | undefined {
  const parsed = parseImage(image);
  if (parsed === undefined) return undefined;
  const { host, repository, suffix } = parsed;
  const here = host === rules.registryHost || LOOPBACK.test(host);
  const first = repository.slice(0, repository.indexOf('/'));
  const rewritten = here && [...rules.upstreams.values()].some(({ name }) => name === first);
  const name = rewritten ? repository : rewriteImage(`${host}/${repository}`, rules)?.slice(rules.registryHost.length + 1);
  return name === undefined ? undefined : { repository: parseRepository(name), reference: referenceOf(suffix) };
}

function referenceOf(suffix: string): Reference {
  const [tag = '', digest] = suffix.split('@');
  if (digest !== undefined && isDigest(digest)) return digest;
  return parseReference(tag === '' ? 'latest' : tag.slice(1));
}
