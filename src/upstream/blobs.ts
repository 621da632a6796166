import { createHash } from 'node:crypto';
import { countBytes, mapBody } from '../io/body.ts';
import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import { splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { formatRange, parseContentRange, type RangeRequest } from '../oci/range.ts';
import type { Repository } from '../oci/reference.ts';
import type { Blob, Body } from '../oci/registry.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { Limits } from './call.ts';
import type { Reply } from './endpoint.ts';
import { UpstreamError } from './errors.ts';
import { headerDigest } from './manifests.ts';
import { isWebPage, webPageError, type Source, type SourceRequest } from './request.ts';

/** Answers to HEAD that GET may contradict: public ECR answers 401, Harbor's proxy cache 404, URLs
 *  signed for GET alone 403. */
const DOUBTFUL = [400, 401, 403, 404, 405, 406, 501];
/** Answers to a range request that do not rule out the whole blob: Artifactory and some CDNs refuse
 *  ranges. */
const RANGE_REFUSED = [400, 403, 405, 416, 501];
/** The largest blob that is read to find its size and check its digest, in bytes. */
const MAX_READ = 64 * 1024 * 1024;

function requestOf(method: 'GET' | 'HEAD', repository: Repository, digest: Digest, range?: RangeRequest): SourceRequest {
  const headers: Record<string, string> = range === undefined ? {} : { range: formatRange(range) };
  return { method, repository, resource: `blobs/${digest}`, headers, kind: 'blobs', absent: 'BLOB_UNKNOWN' };
}

export interface Blobs {
  /** HEAD of a blob, or GET if the answer to HEAD is inconclusive. Compare the size with the known
   *  one: a server that is no registry may answer 200 to everything.
   *  @throws OciError BLOB_UNKNOWN; UNAVAILABLE (other content is there) */
  stat(source: Source, repository: Repository, digest: Digest, limits: Limits): Promise<Descriptor>;
  /** GET of a blob or a range of it, or of the whole blob if ranges are refused. @throws OciError
   *  BLOB_UNKNOWN, RANGE_INVALID */
  open(source: Source, wanted: { repository: Repository; digest: Digest; range: RangeRequest | undefined }, limits: Limits): Promise<Blob>;
}

export function createBlobs({ name, metrics }: { name: string; metrics: Pick<RegistryMetrics, 'received'> }): Blobs {
  const receive = (bytes: number): void => metrics.received(name, bytes);
  return {
    stat: (source, repository, digest, limits) => stat(source, { repository, digest, receive }, limits),
    open: (source, wanted, limits) => open(source, { ...wanted, receive }, limits),
  };
}

interface Wanted {
  repository: Repository;
  digest: Digest;
  /** Called with the bytes of a body as they arrive. */
  receive(this: void, bytes: number): void;
}

async function stat(source: Source, wanted: Wanted, limits: Limits): Promise<Descriptor> {
  const { repository, digest } = wanted;
  const reply = await source.request({ ...requestOf('HEAD', repository, digest), expected: [200, ...DOUBTFUL] }, limits);
  reply.discard();
  const length = lengthOf(reply);
  if (reply.status !== 200 || length === undefined || isWebPage(reply)) return statByGet(source, wanted, limits);
  requireDigest(reply, digest, source.endpoint.host);
  return descriptor(digest, length);
}

async function statByGet(source: Source, { repository, digest, receive }: Wanted, limits: Limits): Promise<Descriptor> {
  const first: RangeRequest = { start: 0, end: 0 };
  const expected = [200, 206, ...RANGE_REFUSED];
  let reply = await source.request({ ...requestOf('GET', repository, digest, first), expected }, limits);
  const total = parseContentRange(String(reply.headers['content-range'] ?? ''))?.size;
  const empty = reply.status === 416 && /^bytes \*\/0$/.test(String(reply.headers['content-range'] ?? ''));
  if (empty || (reply.status === 206 && total !== undefined)) {
    reply.discard();
    requireDigest(reply, digest, source.endpoint.host);
    return descriptor(digest, empty ? 0 : (total ?? 0));
  }
  if (reply.status !== 200) {
    reply.discard();
    reply = await source.request(requestOf('GET', repository, digest), limits);
  }
  const length = lengthOf(reply);
  // Accept a web page only if its bytes match the digest.
  if (length === undefined || isWebPage(reply))
    return descriptor(digest, await readSize(reply, { digest, host: source.endpoint.host, receive }));
  reply.discard();
  requireDigest(reply, digest, source.endpoint.host);
  return descriptor(digest, length);
}

async function open(
  source: Source,
  { repository, digest, range, receive }: Wanted & { range: RangeRequest | undefined },
  limits: Limits,
): Promise<Blob> {
  const { host } = source.endpoint;
  const expected = range === undefined ? [200] : [200, 206, ...RANGE_REFUSED];
  const reply = await source.request({ ...requestOf('GET', repository, digest, range), expected }, limits);
  // Such a page may even carry the requested digest in a header (Harbor in front of something
  // else, goharbor/harbor issue 23882). A page from the registry itself is passed on: every byte
  // is checked anyway.
  if (!source.isOrigin && isWebPage(reply)) {
    reply.discard();
    throw webPageError(host);
  }
  if (reply.status === 206) return partOf(reply, range, { digest, host, receive });
  if (reply.status !== 200) {
    reply.discard();
    const size = /^bytes \*\/(\d{1,15})$/.exec(String(reply.headers['content-range'] ?? ''))?.[1];
    if (reply.status === 416 && size !== undefined)
      throw new UpstreamError('object', 'RANGE_INVALID', `${host} has no bytes in that range`, { size: Number(size) });
    return open(source, { repository, digest, range: undefined, receive }, limits);
  }
  const size = lengthOf(reply);
  return { digest, size, range: undefined, body: checked(reply.body, size, { host, receive }) };
}

/** A blob that is being received. */
interface Expected extends Pick<Wanted, 'digest' | 'receive'> {
  /** The host that sends it. */
  host: string;
}

/** Reads a blob whose upstream announces no size, to learn the size. @throws UpstreamError
 *  UNAVAILABLE: too large, or wrong bytes */
async function readSize(reply: Reply, { digest, host, receive }: Expected): Promise<number> {
  const { algorithm, hex } = splitDigest(digest);
  const hash = createHash(algorithm);
  let size = 0;
  for await (const chunk of countBytes(reply.body, receive)) {
    size += chunk.length;
    if (size > MAX_READ) throw new UpstreamError('object', 'UNAVAILABLE', `${host} does not announce the size of ${digest}`);
    hash.update(chunk);
  }
  if (hash.digest('hex') !== hex) throw new UpstreamError('object', 'UNAVAILABLE', `the bytes from ${host} do not match ${digest}`);
  return size;
}

function partOf(reply: Reply, range: RangeRequest | undefined, { digest, host, receive }: Expected): Blob {
  const part = parseContentRange(String(reply.headers['content-range'] ?? ''));
  if (part === undefined || part.end < part.start || (range !== undefined && 'start' in range && part.start !== range.start)) {
    reply.discard();
    throw new UpstreamError('moment', 'UNAVAILABLE', `${host} sends another range than requested`);
  }
  const { start, end, size } = part;
  return { digest, size, range: { start, end }, body: checked(reply.body, end - start + 1, { host, receive }) };
}

/** Fails the body if it ends before `length`. */
function checked(body: Body, length: number | undefined, { host, receive }: Pick<Expected, 'host' | 'receive'>): Body {
  let received = 0;
  return mapBody(countBytes(body, receive), {
    onBytes(count) {
      received += count;
    },
    onEnd() {
      if (length === undefined || received === length) return;
      throw new OciError('UNAVAILABLE', `${host} sent ${received} bytes instead of ${length}`, { origin: 'upstream' });
    },
  });
}

function descriptor(digest: Digest, size: number): Descriptor {
  return { digest, mediaType: BLOB_MEDIA_TYPE, size };
}

/** @throws UpstreamError UNAVAILABLE: the answer names another digest */
function requireDigest(reply: Reply, digest: Digest, host: string): void {
  const named = headerDigest(reply);
  if (named !== undefined && named !== digest) throw new UpstreamError('object', 'UNAVAILABLE', `${host} has ${named} under ${digest}`);
}

function lengthOf({ headers }: Reply): number | undefined {
  const length = Number(headers['content-length'] ?? Number.NaN);
  return Number.isSafeInteger(length) ? length : undefined;
}
