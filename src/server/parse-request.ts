import { parseDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { parseReference, parseRepository, parseTag, type Reference, type Repository, type Tag } from '../oci/reference.ts';

/** A parsed request of the distribution API. `repository` is as the client wrote it: with the
 *  upstream's name in front, or, if `namespace` (containerd's `?ns=`) names the registry, without
 *  it. */
export type ParsedRequest =
  | { kind: 'ping' }
  | { kind: 'manifest'; repository: Repository; namespace: string | undefined; reference: Reference }
  | { kind: 'blob'; repository: Repository; namespace: string | undefined; digest: Digest }
  | { kind: 'tags'; repository: Repository; namespace: string | undefined; page: TagsPage }
  | { kind: 'referrers'; repository: Repository; namespace: string | undefined; digest: Digest; artifactType: string | undefined }
  /** Answered with 405. `allow`: the supported methods. */
  | { kind: 'unsupported'; message: string; allow: string };

export interface TagsPage {
  /** The maximum number of tags; undefined: all. */
  n: number | undefined;
  last: Tag | undefined;
}

type Endpoint = { kind: 'manifest' | 'blob' | 'tags' | 'referrers' | 'uploads'; name: string; argument: string };

const READ = 'GET, HEAD';
const READ_ONLY = 'this is no hosted repository (registry.hosted), and images of upstreams are read-only';
/** No media type is longer (RFC 6838 §4.2: two names of at most 127 characters). */
const ARTIFACT_TYPE = /^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$/;
const HOST = /^(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?$/;
const MAX_PORT = 65_535;
const ABSOLUTE = /^https?:\/\/[^/?#]*/i;

/** Parses method and request target (`/v2/…?…`, not decoded).
 *
 *  Nothing in a path needs percent-encoding, so an encoded slash, dot or NUL is outside the
 *  grammar; only the colon of a digest, which some clients encode, is decoded.
 *  @throws OciError NAME_INVALID, TAG_INVALID, DIGEST_INVALID, PAGINATION_NUMBER_INVALID,
 *  NAME_UNKNOWN (no such endpoint) */
export function parseRequest(method: string, target: string): ParsedRequest {
  const { path, query } = splitTarget(target);
  if (path !== '/v2' && !path.startsWith('/v2/')) {
    throw new OciError('NAME_UNKNOWN', 'there is nothing here; the registry answers under /v2/');
  }
  if (method !== 'GET' && method !== 'HEAD') {
    return { kind: 'unsupported', message: `${method} is not supported: ${READ_ONLY}`, allow: READ };
  }
  if (path.length <= 4) return { kind: 'ping' };
  if (path === '/v2/_catalog') {
    return { kind: 'unsupported', message: 'there is no catalog: this registry serves everything that its upstreams serve', allow: '' };
  }
  return parseEndpoint(findEndpoint(path.slice(4)), query === undefined ? undefined : new URLSearchParams(query));
}

/** Splits a request target, which may be an absolute URL (RFC 9112 §3.2.2), at its first question
 *  mark. Every part of the server splits targets with this function, so that rights are checked for
 *  exactly what is served.
 *  @returns `query` without the question mark; undefined if the target has none */
export function splitTarget(target: string): { path: string; query: string | undefined } {
  const url = target.startsWith('/') ? target : target.replace(ABSOLUTE, '');
  const question = url.indexOf('?');
  if (question === -1) return { path: url, query: undefined };
  return { path: url.slice(0, question), query: url.slice(question + 1) };
}

/** The verb is the second to last segment: the name of a repository may contain any verb. */
export function findEndpoint(path: string): Endpoint {
  const end = path.lastIndexOf('/');
  const start = path.lastIndexOf('/', end - 1);
  const verb = path.slice(start + 1, end);
  const name = path.slice(0, Math.max(0, start));
  const argument = path.slice(end + 1);
  if (name.endsWith('/blobs') && verb === 'uploads') return { kind: 'uploads', name: name.slice(0, -'/blobs'.length), argument };
  switch (verb) {
    case 'manifests':
      return { kind: 'manifest', name, argument };
    case 'blobs':
      return { kind: argument === 'uploads' ? 'uploads' : 'blob', name, argument };
    case 'referrers':
      return { kind: 'referrers', name, argument };
    case 'tags':
      if (argument === 'list') return { kind: 'tags', name, argument };
  }
  throw new OciError(
    'NAME_UNKNOWN',
    'no such endpoint; a repository has manifests/<tag or digest>, blobs/<digest>, tags/list and referrers/<digest>',
  );
}

function parseEndpoint({ kind, name, argument }: Endpoint, query: URLSearchParams | undefined): ParsedRequest {
  const repository = parseRepository(name);
  const namespace = parseNamespace(query?.get('ns'));
  switch (kind) {
    case 'manifest':
      return { kind, repository, namespace, reference: parseReference(decodeColon(argument)) };
    case 'blob':
      return { kind, repository, namespace, digest: parseDigest(decodeColon(argument)) };
    case 'tags':
      return { kind, repository, namespace, page: parsePage(query) };
    case 'referrers':
      return {
        kind,
        repository,
        namespace,
        digest: parseDigest(decodeColon(argument)),
        artifactType: parseArtifactType(query?.get('artifactType')),
      };
    default:
      return { kind: 'unsupported', message: `uploads are not supported: ${READ_ONLY}`, allow: '' };
  }
}

export function decodeColon(text: string): string {
  return text.includes('%') ? text.replace(/%3a/i, ':') : text;
}

export function parseNamespace(text: string | null | undefined): string | undefined {
  if (text === null || text === undefined || text === '') return undefined;
  if (!isHost(text)) {
    throw new OciError(
      'NAME_INVALID',
      `ns is not a host: ${JSON.stringify(text.slice(0, 160))}; write the registry of the image, as docker.io or registry.example.com:5000`,
    );
  }
  return text.toLowerCase();
}

/** Whether the text is a host, with or without a port. */
export function isHost(text: string): boolean {
  const [host, port = '1'] = HOST.exec(text) ?? [];
  return host !== undefined && Number(port) >= 1 && Number(port) <= MAX_PORT;
}

function parsePage(query: URLSearchParams | undefined): TagsPage {
  const n = query?.get('n') ?? undefined;
  const last = query?.get('last') ?? undefined;
  if (n !== undefined && !/^\d{1,9}$/.test(n)) {
    throw new OciError('PAGINATION_NUMBER_INVALID', `n is not a count of tags: ${JSON.stringify(n.slice(0, 160))}`);
  }
  return { n: n === undefined ? undefined : Number(n), last: last === undefined || last === '' ? undefined : parseTag(last) };
}

function parseArtifactType(text: string | null | undefined): string | undefined {
  if (text === null || text === undefined || text === '') return undefined;
  if (!ARTIFACT_TYPE.test(text)) {
    throw new OciError('NAME_INVALID', `artifactType is not a media type: ${JSON.stringify(text.slice(0, 160))}`);
  }
  return text;
}
