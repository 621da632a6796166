import { splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { Repository, Tag } from '../oci/reference.ts';

// What lies where in a store (DESIGN §4). `repository` is prefixed by its upstream's name: dockerhub/library/nginx.
// No component of a repository starts with `_` or holds a colon, so what lies beneath one repository is never taken for a
// part of another one's name, nor a file for a directory.

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
  return `v1/used/${day.toISOString().slice(0, 10)}/${repository}/${digest}`;
}

// What every store can keep, in this order and under these names: a file's name holds 255 bytes, an S3 key 1024 with its
// prefix. A segment never starts with a dot: no way up, and room for a store's own files.
const SEGMENT = /^[A-Za-z0-9_][A-Za-z0-9._:-]{0,254}$/;
const PARTIAL_SEGMENT = /^(?:[A-Za-z0-9_][A-Za-z0-9._:-]{0,254})?$/;
const MAX_KEY_LENGTH = 900;

export function isKeySegment(text: string): boolean {
  return SEGMENT.test(text);
}

/** `key` itself, when it can name an object. @throws OciError NAME_INVALID */
export function checkKey(key: string): string {
  if (key.length > MAX_KEY_LENGTH || !key.split('/').every(isKeySegment)) throw refusal(key);
  return key;
}

/** `prefix` itself, when keys can start with it. @throws OciError NAME_INVALID */
export function checkPrefix(prefix: string): string {
  const segments = prefix.split('/');
  const last = segments.pop() ?? '';
  if (prefix.length > MAX_KEY_LENGTH || !PARTIAL_SEGMENT.test(last) || !segments.every(isKeySegment)) throw refusal(prefix);
  return prefix;
}

function refusal(key: string): OciError {
  return new OciError('NAME_INVALID', `nothing is stored under such a name: ${JSON.stringify(key.slice(0, 160))}`);
}
