import { isDigest } from '../../oci/digest.ts';
import { upstreamNameOf } from '../../oci/capability.ts';
import { parseImage, servedRepository, type ServedHosts } from '../../oci/image-name.ts';
import { parseReference, parseRepository, type Reference, type Repository } from '../../oci/reference.ts';

/** An image as the registry names it. */
export interface WarmName {
  /** Starts with the upstream's name: dockerhub/library/nginx. */
  repository: Repository;
  reference: Reference;
}

export interface WarmRules {
  /** The prefix of rewritten images: `127.0.0.1:25000`. */
  registryHost: string;
  hosts: ServedHosts;
}

const LOOPBACK = /^(?:localhost|127\.0\.0\.1|\[::1\])(?::\d+)?$/;

/** The repository and reference under which the registry serves an image, in any spelling of its
 *  name: `nginx`, `ghcr.io/a/b:1@sha256:…`, or already rewritten. Prefers the digest to the tag, as
 *  container runtimes do; without either, `latest`.
 *  @returns undefined if `image` is not an image name, or its host is not served */
export function parseWarmName(image: string, { registryHost, hosts }: WarmRules): WarmName | undefined {
  const parsed = parseImage(image);
  if (parsed === undefined) return undefined;
  const { host, repository, suffix } = parsed;
  const isThisRegistry = host === registryHost || LOOPBACK.test(host);
  const isRewritten = isThisRegistry && repository.includes('/') && hosts.hasName(upstreamNameOf(parseRepository(repository)));
  const served = isRewritten ? parseRepository(repository) : servedRepository(parsed, hosts);
  return served === undefined ? undefined : { repository: served, reference: referenceOf(suffix) };
}

function referenceOf(suffix: string): Reference {
  const [tag = '', digest] = suffix.split('@');
  if (digest !== undefined && isDigest(digest)) return digest;
  return parseReference(tag === '' ? 'latest' : tag.slice(1));
}
