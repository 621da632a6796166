import type { RegistryConfig } from '../../config/schema.ts';
import { isDigest } from '../../oci/digest.ts';
import type { WarmName } from './warm-name.ts';

/** The usual name of an image: `docker.io/library/nginx:1.27`, or `…@sha256:…`.
 *  @returns undefined: no upstream of the configuration has its repository */
export function fullImageName({ repository, reference }: WarmName, upstreams: RegistryConfig['upstreams']): string | undefined {
  const slash = repository.indexOf('/');
  const host = upstreams[repository.slice(0, slash)]?.hosts[0];
  if (host === undefined) return undefined;
  return `${host}/${repository.slice(slash + 1)}${isDigest(reference) ? '@' : ':'}${reference}`;
}
