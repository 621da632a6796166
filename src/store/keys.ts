import { isDigest, splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { isRepository, isTag, type Reference, type Repository, type Tag } from '../oci/reference.ts';

// The keys of a store's objects. `repository` is prefixed by its upstream's name:
// dockerhub/library/nginx. No component of a repository starts with `_` or contains a colon. So the
// records of one repository are never mistaken for another repository, nor a file for a directory.

/** The bytes of a digest: of manifests and blobs alike, one copy for all repositories. */
export function blobKey(digest: Digest): string {
  const { algorithm, hex } = splitDigest(digest);
  return `v1/blobs/${algorithm}/${hex.slice(0, 2)}/${hex}`;
}

/** { digest, checkedAt }: the digest of a tag when upstream was last asked. */
export function tagKey(repository: Repository, tag: Tag): string {
  return `v1/repos/${repository}/_tags/${tag}`;
}

/** { mediaType, size }: this repository may serve this digest. */
export function memberKey(repository: Repository, digest: Digest): string {
  const { algorithm, hex } = splitDigest(digest);
  return `${membersPrefix(repository)}${algorithm}/${hex}`;
}

/** The prefix of these records. */
export function membersPrefix(repository: Repository): string {
  return `v1/repos/${repository}/_members/`;
}

/** { checkedAt, index }: the referrers of `subject` when upstream was last asked. */
export function referrerListKey(repository: Repository, subject: Digest): string {
  const { algorithm, hex } = splitDigest(subject);
  return `v1/repos/${repository}/_subjects/${algorithm}/${hex}`;
}

/** Empty; says that the digest was requested on that day (UTC). */
export function usedKey(day: Date, repository: Repository, digest: Digest): string {
  return `v1/used/${day.toISOString().slice(0, 10)}/${repository}/${digest}`;
}

/** { at }: when this registry first saw a manifest. Written only if registry.policy.minimumAge is
 *  set. */
export function seenKey(digest: Digest): string {
  const { algorithm, hex } = splitDigest(digest);
  return `${SEEN}${algorithm}/${hex.slice(0, 2)}/${hex}`;
}

/** The prefix of all records of when a manifest was first seen. */
export const SEEN = 'v1/seen/';

/** The manifest of such a record; undefined for any other key. */
export function parseSeenKey(key: string): Digest | undefined {
  const [, algorithm, hex] = /^v1\/seen\/([^/]+)\/[^/]+\/([^/]+)$/.exec(key) ?? [];
  const digest = `${algorithm}:${hex}`;
  return isDigest(digest) && seenKey(digest) === key ? digest : undefined;
}

/** { by, at }: an image that a user has pinned, under a tag or by its digest. No component of a
 *  repository holds a colon or starts with `_`. */
export function pinKey(repository: Repository, reference: Reference): string {
  return `${PINS}${repository}/_${isDigest(reference) ? reference : `tag:${reference}`}`;
}

/** The prefix of all pins. */
export const PINS = 'v1/pins/';

/** `repository:tag` or `repository@digest`; undefined: the key is no pin's. */
export function parsePinKey(key: string): string | undefined {
  const at = key.lastIndexOf('/_');
  const [repository, reference] = [key.slice(PINS.length, at), key.slice(at + 2)];
  if (at < PINS.length || !isRepository(repository)) return undefined;
  if (isDigest(reference)) return `${repository}@${reference}`;
  const tag = reference.startsWith('tag:') ? reference.slice('tag:'.length) : '';
  return isTag(tag) ? `${repository}:${tag}` : undefined;
}

/** The prefix of every key in a store. */
export const V1 = 'v1/';
/** The prefix of the records of `repository`, and of repositories whose names start with its name
 *  and a slash. */
export function repositoryPrefix(repository: Repository): string {
  return `v1/repos/${repository}/`;
}

/** The descriptor of a manifest of `repository` whose subject is `subject`, with its artifactType
 *  and annotations. */
export function referrerKey(repository: Repository, subject: Digest, digest: Digest): string {
  return `${referrersPrefix(repository, subject)}${digest}`;
}

/** The prefix of the referrers of `subject`. */
export function referrersPrefix(repository: Repository, subject: Digest): string {
  const { algorithm, hex } = splitDigest(subject);
  return `v1/repos/${repository}/_referrers/${algorithm}/${hex}/`;
}

/** Empty; says that a blob was pushed to, or mounted into, `repository`. */
export function ownerKey(digest: Digest, repository: Repository): string {
  return `${ownersPrefix(digest)}${repository}/_`;
}

/** The prefix of the repositories that a blob was pushed to. */
export function ownersPrefix(digest: Digest): string {
  const { algorithm, hex } = splitDigest(digest);
  return `${OWNERS}${algorithm}/${hex.slice(0, 2)}/${hex}/`;
}

export const OWNERS = 'v1/owners/';

/** The blob of a key below OWNERS; undefined if it names none. */
export function parseOwnedBlob(key: string): Digest | undefined {
  const [algorithm, , hex] = key.slice(OWNERS.length).split('/', 3);
  const digest = `${algorithm}:${hex}`;
  return key.startsWith(OWNERS) && isDigest(digest) ? digest : undefined;
}

/** The repository that a key below `ownersPrefix(digest)` names; undefined if it names none. */
export function parseOwnerKey(key: string, digest: Digest): Repository | undefined {
  const repository = key.slice(ownersPrefix(digest).length, -'/_'.length);
  return key.endsWith('/_') && isRepository(repository) ? repository : undefined;
}

/** The prefix of the objects of one upload: its start, and its chunks. */
export function uploadPrefix(repository: Repository, id: string): string {
  return `${UPLOADS}${repository}/_${id}/`;
}

/** Empty; written when an upload starts. */
export function uploadStartKey(repository: Repository, id: string): string {
  return `${uploadPrefix(repository, id)}start`;
}

/** The bytes of an upload from `start` on. Keys sort as their starts do. @param nonce 16
 *  hexadecimal digits: no chunk is ever overwritten */
export function uploadChunkKey(repository: Repository, id: string, { start, nonce }: { start: number; nonce: string }): string {
  return `${uploadPrefix(repository, id)}${String(start).padStart(16, '0')}-${nonce}`;
}

/** The position of a chunk, by its key; undefined: the key is not a chunk's. Older programs wrote
 *  chunks without a nonce. */
export function parseUploadChunkKey(key: string): number | undefined {
  const [, start] = /\/(\d{16})(?:-[0-9a-f]{16})?$/.exec(key) ?? [];
  return start === undefined ? undefined : Number(start);
}

/** The prefix of the parts of one blob that is being downloaded. */
export function partsPrefix(digest: Digest): string {
  const { algorithm, hex } = splitDigest(digest);
  return `${PARTS}${algorithm}/${hex.slice(0, 2)}/${hex}/`;
}

/** The bytes of a blob of `size` bytes from `start` on, as they came from upstream: nothing has
 *  checked them yet.
 *  @param nonce 16 hexadecimal digits: no part is ever overwritten */
export function partKey(digest: Digest, { size, start, nonce }: { size: number; start: number; nonce: string }): string {
  return `${partsPrefix(digest)}${padded(size)}-${padded(start)}-${nonce}`;
}

/** The blob and its size, and the part's position, by the part's key; undefined: the key is not a
 *  part's. */
export function parsePartKey(key: string): { digest: Digest; size: number; start: number } | undefined {
  const [, algorithm, hex, size, start] =
    /^v1\/parts\/([a-z0-9]+)\/[0-9a-f]{2}\/([0-9a-f]+)\/(\d{16})-(\d{16})-[0-9a-f]{16}$/.exec(key) ?? [];
  const digest = `${algorithm}:${hex}`;
  return isDigest(digest) ? { digest, size: Number(size), start: Number(start) } : undefined;
}

function padded(position: number): string {
  return String(position).padStart(16, '0');
}

/** The prefixes of the claims of pushes, and of the blobs that a pruning is removing
 *  (store/claims.ts). */
export const CLAIMS = 'v1/claims/';
export const SWEEPS = 'v1/sweeps/';

/** The prefix of all uploads. */
export const UPLOADS = 'v1/uploads/';
/** The prefix of the parts of blobs that are being downloaded. */
export const PARTS = 'v1/parts/';

/** The prefixes of all blobs, all records of repositories, and all usage records. */
export const BLOBS = 'v1/blobs/';
export const REPOSITORIES = 'v1/repos/';
export const USES = 'v1/used/';

/** The prefix of the markers of tags that upstream has deleted and that are served nevertheless. */
export const GONE = 'v1/gone/';

/** The marker of such a tag, by the tag's key; empty. */
export function goneKey(key: string): string {
  return GONE + key.slice(REPOSITORIES.length);
}

/** The key of the tag that a marker's key (starting with GONE) stands for. */
export function keyOfGone(key: string): string {
  return REPOSITORIES + key.slice(GONE.length);
}

/** The prefix of the markers of blobs in a local tier that its remote store does not have yet. */
export const PENDING = 'v1/pending/';

/** The marker of such a blob; empty. It survives the process. */
export function pendingKey(digestKey: string): string {
  return PENDING + digestKey.slice(BLOBS.length);
}

/** The key of the blob that a marker's key (starting with PENDING) stands for. */
export function keyOfPending(key: string): string {
  return BLOBS + key.slice(PENDING.length);
}

/** { owner, renewedAt, finishedAt }: the process that prunes, and when a pruning last finished. */
export const PRUNING = 'v1/pruning';

/** The same for scheduled warming, and the result of its last run: { startedAt, finishedAt, warm,
 *  failed, skipped, bytes }. */
export const WARMING = 'v1/warming';
export const WARMED = 'v1/warmed';

/** Parses a key that starts with BLOBS; undefined: this program did not write it. */
export function parseBlobKey(key: string): Digest | undefined {
  const [, , algorithm = '', , hex = ''] = key.split('/');
  const digest = `${algorithm}:${hex}`;
  return isDigest(digest) && blobKey(digest) === key ? digest : undefined;
}

export type RepositoryRecord = { repository: Repository } & ({ tag: Tag } | { member: Digest } | { subject: Digest });

/** Parses a key that starts with REPOSITORIES; undefined: this program did not write it. */
export function parseRepositoryKey(key: string): RepositoryRecord | undefined {
  // No component of a repository starts with `_`.
  const at = key.indexOf('/_');
  const repository = key.slice(REPOSITORIES.length, at);
  if (at === -1 || !isRepository(repository)) return undefined;
  const [kind, first = '', second = '', ...more] = key.slice(at + 1).split('/');
  if (kind === '_tags' && second === '' && isTag(first)) return { repository, tag: first };
  const digest = `${first}:${second}`;
  if (more.length > 0 || !isDigest(digest)) return undefined;
  if (kind === '_subjects') return { repository, subject: digest };
  return kind === '_members' ? { repository, member: digest } : undefined;
}

const USED = /^v1\/used\/(\d{4}-\d\d-\d\d)\/(.+)\/([^/]+)$/;

/** Parses a key that starts with USES; undefined: this program did not write it. */
export function parseUsedKey(key: string): { day: string; repository: Repository; digest: Digest } | undefined {
  const [, day = '', repository = '', digest = ''] = USED.exec(key) ?? [];
  return isRepository(repository) && isDigest(digest) ? { day, repository, digest } : undefined;
}

/** Whether a record of `size` bytes may be that of a manifest, so that a listing distinguishes most
 *  blobs from manifests without reading every record: application/octet-stream and a size of up to
 *  15 digits take 63 bytes, the shortest type of a manifest takes 64. A blob whose record has
 *  further fields may pass: its `mediaType` decides. */
export function isManifestRecord(size: number): boolean {
  return size > 63;
}

// Keys that every store can keep, in this order and under these names: a file name holds 255 bytes,
// an S3 key 1024 including its prefix. A segment never starts with a dot: this excludes `..`, and
// leaves room for a store's own files.
const SEGMENT = /^[A-Za-z0-9_][A-Za-z0-9._:-]{0,254}$/;
const PARTIAL_SEGMENT = /^(?:[A-Za-z0-9_][A-Za-z0-9._:-]{0,254})?$/;
const KEY = /^[A-Za-z0-9_][A-Za-z0-9._:-]{0,254}(?:\/[A-Za-z0-9_][A-Za-z0-9._:-]{0,254})*$/;
const MAX_KEY_LENGTH = 900;

export function isKeySegment(text: string): boolean {
  return SEGMENT.test(text);
}

/** Whether `key` can name an object. */
export function isKey(key: string): boolean {
  return key.length <= MAX_KEY_LENGTH && KEY.test(key);
}

/** Returns `key` if it can name an object. @throws OciError NAME_INVALID */
export function checkKey(key: string): string {
  if (!isKey(key)) throw refusal(key);
  return key;
}

/** Returns `prefix` if keys can start with it. @throws OciError NAME_INVALID */
export function checkPrefix(prefix: string): string {
  const segments = prefix.split('/');
  const last = segments.pop() ?? '';
  if (prefix.length > MAX_KEY_LENGTH || !PARTIAL_SEGMENT.test(last) || !segments.every(isKeySegment)) throw refusal(prefix);
  return prefix;
}

function refusal(key: string): OciError {
  return new OciError('NAME_INVALID', `nothing is stored under such a name: ${JSON.stringify(key.slice(0, 160))}`);
}
