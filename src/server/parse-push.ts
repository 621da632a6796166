import { parseDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { isUploadId, type UploadId } from '../oci/push-registry.ts';
import { parseReference, parseRepository, parseTag, type Reference, type Repository, type Tag } from '../oci/reference.ts';
import { decodeColon, findEndpoint, parseNamespace, splitTarget } from './parse-request.ts';

interface Named {
  /** As the client wrote it. */
  repository: Repository;
  /** containerd's `?ns=`. */
  namespace: string | undefined;
}

/** A request that writes, or queries an upload (distribution specification 1.1, "Endpoints" 4 to
 *  11). */
export type PushRequest = Named &
  (
    | { kind: 'start-upload'; digest: Digest | undefined; mount: Digest | undefined; from: Repository | undefined }
    | { kind: 'upload-status' | 'append' | 'cancel-upload'; id: UploadId }
    | { kind: 'finish-upload'; id: UploadId; digest: Digest }
    | { kind: 'put-manifest'; reference: Reference; tags: Tag[] }
    | { kind: 'delete-manifest'; reference: Reference }
    | { kind: 'delete-blob'; digest: Digest }
  );

const MAX_TAGS = 100;

/** @param target path and query, not decoded
 *  @returns undefined for a request that reads, or whose method the endpoint does not support
 *  @throws OciError NAME_INVALID, TAG_INVALID, DIGEST_INVALID, BLOB_UPLOAD_UNKNOWN, NAME_UNKNOWN
 *  (no such endpoint) */
export function parsePush(method: string, target: string): PushRequest | undefined {
  const { path, query: search } = splitTarget(target);
  const endpoint = findEndpoint(path.slice('/v2/'.length));
  const query = new URLSearchParams(search);
  const named = { repository: parseRepository(endpoint.name), namespace: parseNamespace(query.get('ns')) };
  switch (endpoint.kind) {
    case 'uploads':
      return parseUpload(method, endpoint.argument, query, named);
    case 'manifest':
      return parseManifest(method, endpoint.argument, query, named);
    case 'blob':
      return method === 'DELETE' ? { ...named, kind: 'delete-blob', digest: parseDigest(decodeColon(endpoint.argument)) } : undefined;
    default:
      return undefined;
  }
}

function parseUpload(method: string, argument: string, query: URLSearchParams, named: Named): PushRequest | undefined {
  if (argument === '' || argument === 'uploads') {
    if (method !== 'POST') return undefined;
    const [digest, mount, from] = [query.get('digest'), query.get('mount'), query.get('from')];
    return {
      ...named,
      kind: 'start-upload',
      digest: digest === null ? undefined : parseDigest(digest),
      mount: mount === null ? undefined : parseDigest(mount),
      from: from === null || from === '' ? undefined : parseRepository(from),
    };
  }
  if (!isUploadId(argument)) throw new OciError('BLOB_UPLOAD_UNKNOWN', 'there is no such upload');
  const id = argument;
  switch (method) {
    case 'GET':
    case 'HEAD':
      return { ...named, kind: 'upload-status', id };
    case 'PATCH':
      return { ...named, kind: 'append', id };
    case 'DELETE':
      return { ...named, kind: 'cancel-upload', id };
    case 'PUT':
      return { ...named, kind: 'finish-upload', id, digest: onlyDigest(query) };
    default:
      return undefined;
  }
}

/** @throws OciError DIGEST_INVALID: no digest, or more than one */
function onlyDigest(query: URLSearchParams): Digest {
  const [digest, ...more] = query.getAll('digest');
  if (digest === undefined) throw new OciError('DIGEST_INVALID', 'an upload ends with its digest: PUT …?digest=sha256:…');
  if (more.length > 0) throw new OciError('DIGEST_INVALID', 'an upload has one digest, but the request names several');
  return parseDigest(digest);
}

function parseManifest(method: string, argument: string, query: URLSearchParams, named: Named): PushRequest | undefined {
  const reference = parseReference(decodeColon(argument));
  if (method === 'DELETE') return { ...named, kind: 'delete-manifest', reference };
  if (method !== 'PUT') return undefined;
  const tags = query.getAll('tag');
  if (tags.length > MAX_TAGS)
    throw new OciError('TAG_INVALID', `a push may set at most ${MAX_TAGS} tags, but this one sets ${tags.length}`);
  return { ...named, kind: 'put-manifest', reference, tags: tags.map(parseTag) };
}
