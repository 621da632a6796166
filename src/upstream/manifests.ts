import { parseInTurn } from '../async/long-steps.ts';
import { documentBytes } from '../async/byte-budget.ts';
import { MANIFEST_MEDIA_TYPES, MAX_MANIFEST_SIZE, parseManifest, type Descriptor } from '../oci/descriptor.ts';
import { digestInPieces, isDigest, splitDigest } from '../oci/digest.ts';
import { isTag, type Reference, type Repository } from '../oci/reference.ts';
import type { Manifest } from '../oci/registry.ts';
import type { Limits } from './call.ts';
import type { Reply } from './endpoint.ts';
import { UpstreamError } from './errors.ts';
import { isWebPage, mediaTypeOf, webPageError, type Source, type SourceRequest } from './request.ts';

const ACCEPT = { accept: MANIFEST_MEDIA_TYPES.join(', ') };
/** Answers to HEAD that GET may contradict: many registries, and the proxies in front of them,
 *  answer HEAD wrongly. */
const DOUBTFUL = [400, 401, 403, 404, 405, 406, 501];

function requestOf(method: 'GET' | 'HEAD', repository: Repository, reference: Reference): SourceRequest {
  return { method, repository, resource: `manifests/${reference}`, headers: ACCEPT, kind: 'manifests', absent: 'MANIFEST_UNKNOWN' };
}

/** GET of a manifest. @throws OciError MANIFEST_UNKNOWN, MANIFEST_INVALID; as `request` does */
export async function getManifest(source: Source, repository: Repository, reference: Reference, limits: Limits): Promise<Manifest> {
  if (limits.reserve !== undefined) return readManifest(source, repository, reference, { ...limits, reserve: limits.reserve });
  const lease = documentBytes.lease();
  try {
    return await readManifest(source, repository, reference, { ...limits, reserve: lease.reserve });
  } finally {
    lease.release();
  }
}

async function readManifest(source: Source, repository: Repository, reference: Reference, limits: Required<Limits>): Promise<Manifest> {
  const { host } = source.endpoint;
  const reply = await source.request(requestOf('GET', repository, reference), limits);
  if (isWebPage(reply)) {
    reply.discard();
    throw webPageError(host);
  }
  const bytes = await source.readDocument(reply, MAX_MANIFEST_SIZE, (size) => limits.reserve(size, limits.signal));
  const digest = await verify(bytes, reference, reply, host);
  const header = mediaTypeOf(reply);
  const content = await parseInTurn(bytes.length, () => parseManifest(bytes, header));
  const mediaType = MANIFEST_MEDIA_TYPES.includes(content.mediaType) ? content.mediaType : header;
  requireManifestType(mediaType, host);
  return { descriptor: { mediaType, digest, size: bytes.length }, bytes, stale: false };
}

/** @throws UpstreamError MANIFEST_INVALID: the bytes do not match the reference, or the digest that
 *  the answer states */
async function verify(bytes: Buffer, reference: Reference, reply: Reply, host: string) {
  const header = headerDigest(reply);
  const expected = isDigest(reference) ? reference : header;
  const digest = await digestInPieces(bytes, expected === undefined ? 'sha256' : splitDigest(expected).algorithm);
  if (expected === undefined || digest === expected) return digest;
  throw new UpstreamError('object', 'MANIFEST_INVALID', `what ${host} sent for ${reference} is not ${expected}`);
}

export function headerDigest({ headers }: Pick<Reply, 'headers'>) {
  const digest = headers['docker-content-digest'];
  return typeof digest === 'string' && isDigest(digest) ? digest : undefined;
}

/** HEAD of a manifest, or GET if the answer to HEAD is inconclusive. @throws as `getManifest`
 *  does */
export async function headManifest(source: Source, repository: Repository, reference: Reference, limits: Limits): Promise<Descriptor> {
  const reply = await source.request({ ...requestOf('HEAD', repository, reference), expected: [200, ...DOUBTFUL] }, limits);
  reply.discard();
  const digest = headerDigest(reply);
  const size = Number(reply.headers['content-length'] ?? Number.NaN);
  const mediaType = mediaTypeOf(reply);
  const isClear =
    reply.status === 200 && (digest === reference || isTag(reference)) && size > 0 && MANIFEST_MEDIA_TYPES.includes(mediaType);
  if (isClear && digest !== undefined) return { mediaType, digest, size };
  return (await getManifest(source, repository, reference, limits)).descriptor;
}

function requireManifestType(mediaType: string, host: string): void {
  if (MANIFEST_MEDIA_TYPES.includes(mediaType)) return;
  const found = mediaType.startsWith('application/vnd.docker.distribution.manifest.v1')
    ? 'a Docker schema 1 manifest, which containerd no longer pulls either'
    : `${mediaType || 'no media type'}, which is not a manifest`;
  throw new UpstreamError('object', 'MANIFEST_INVALID', `${host} sends ${found}`);
}
