import { parseImage, servedRepository, type ServedHosts } from '../oci/image-name.ts';

export interface RewriteRules {
  /** What rewritten images start with: `127.0.0.1:25000`. */
  registryHost: string;
  hosts: ServedHosts;
}

/** The name by which a node pulls `image` from this registry. Tag and digest stay as written; none is
 *  added.
 *  @returns undefined if `image` is not an image name, or its host is not served */
export function rewriteImage(image: string, { registryHost, hosts }: RewriteRules): string | undefined {
  const parsed = parseImage(image);
  const repository = parsed === undefined ? undefined : servedRepository(parsed, hosts);
  return parsed === undefined || repository === undefined ? undefined : `${registryHost}/${repository}${parsed.suffix}`;
}
