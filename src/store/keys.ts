import { splitDigest, type Digest } from '../oci/digest.ts';
import type { Repository, Tag } from '../oci/reference.ts';

// What lies where in a store (DESIGN §4). `repository` is prefixed by its upstream's name: dockerhub/library/nginx.

/** Where the bytes of a digest lie: manifests and blobs alike, one copy for all repositories. */
export function blobKey(digest: Digest): string {
  const { algorithm, hex } = splitDigest(digest);
  return `v1/blobs/${algorithm}/${hex.slice(0, 2)}/${hex}`;
}

/** { digest, checkedAt }: what a tag meant when upstream was last asked. */
export function tagKey(repository: Repository, tag: Tag): string {
  return `v1/repos/${repository}/_tags/${tag}`;
}

/** { mediaType, size }: this repository may serve this digest. */
export function memberKey(repository: Repository, digest: Digest): string {
  const { algorithm, hex } = splitDigest(digest);
  return `v1/repos/${repository}/_members/${algorithm}/${hex}`;
}

/** Empty; says that the digest was asked for on that day (UTC). */
export function usedKey(day: Date, repository: Repository, digest: Digest): string {
  return `v1/used/${day.toISOString().slice(0, 10)}/${repository}/${digest.replace(':', '-')}`;
}
