import { parseImage, servedRepository, type ServedHosts } from '../oci/image-name.ts';
import { privateName } from '../oci/private-name.ts';
import type { Repository } from '../oci/reference.ts';

export interface RewriteRules {
  /** The prefix of rewritten images: `127.0.0.1:25000`. */
  registryHost: string;
  hosts: ServedHosts;
}

/** The maximum length of a name in distribution/reference; containerd 1.6 includes the host. */
const MAX_NAME_LENGTH = 255;

/** The name by which a node pulls `image` from this registry. Tag and digest stay as written; none
 *  is added.
 *  @returns undefined if `image` is not an image name, or its host is not served */
export function rewriteImage(image: string, { registryHost, hosts }: RewriteRules): string | undefined {
  const parsed = parseImage(image);
  const repository = parsed === undefined ? undefined : servedRepository(parsed, hosts);
  return parsed === undefined || repository === undefined ? undefined : `${registryHost}/${repository}${parsed.suffix}`;
}

/** The name of an image that is pulled with the pull secret entries of these ids.
 *  @param image as returned by rewriteImage()
 *  @returns undefined if there are too many ids for a name */
export function withIds(image: string, ids: readonly string[], registryHost: string): string | undefined {
  const [, repository = '', suffix = ''] = /^([^:@]*)(.*)$/.exec(image.slice(registryHost.length + 1)) ?? [];
  const name = privateName({ ids, repository: repository as Repository });
  return name === undefined || registryHost.length + 1 + name.length > MAX_NAME_LENGTH ? undefined : `${registryHost}/${name}${suffix}`;
}
