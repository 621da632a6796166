import { LRUCache } from 'lru-cache';
import { createHash, randomBytes } from 'node:crypto';
import { mapBody } from '../io/body.ts';
import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import { splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { formatRange, parseContentRange, type RangeRequest } from '../oci/range.ts';
import type { Repository } from '../oci/reference.ts';
import type { Blob, Body } from '../oci/registry.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { Limits, Reply } from './endpoint.ts';
import { UpstreamError } from './errors.ts';
import { headerDigest } from './manifests.ts';
import { isWebPage, webPageError, type Source, type SourceRequest } from './request.ts';

/** Answers to HEAD that GET may contradict: public ECR answers 401, Harbor's proxy cache 404, URLs signed for GET alone 403. */
const DOUBTFUL = [400, 401, 403, 404, 405, 406, 501];
/** Answers to a range that the whole may contradict: Artifactory and some CDNs refuse ranges. */
const RANGE_REFUSED = [400, 403, 405, 416, 501];
/** The largest blob that is read to find out its size and to check its digest, in bytes. */
const MAX_READ = 64 * 1024 * 1024;
/** How long it is believed that a repository does not say yes to everything. */
const HONEST_LIFE_MS = 600_000;

function requestOf(method: 'GET' | 'HEAD', repository: Repository, digest: Digest, range?: RangeRequest): SourceRequest {
  const headers: Record<string, string> = range === undefined ? {} : { range: formatRange(range) };
  return { method, repository, resource: `blobs/${digest}`, headers, kind: 'blobs', absent: 'BLOB_UNKNOWN' };
}

export interface Blobs {
  /** HEAD of a blob, whose answer is a proof that the repository has it.
   *  @throws OciError BLOB_UNKNOWN; UNAVAILABLE (what answers says yes to everything) */
  stat(source: Source, repository: Repository, digest: Digest, limits: Limits): Promise<Descriptor>;
  /** GET of a blob or a range of it; of the whole where ranges are refused. @throws OciError BLOB_UNKNOWN, RANGE_INVALID */
  open(source: Source, wanted: { repository: Repository; digest: Digest; range: RangeRequest | undefined }, limits: Limits): Promise<Blob>;
}

export interface BlobsOptions {
  /** The upstream's. */
  name: string;
  metrics: Pick<RegistryMetrics, 'received'>;
  /** Its word needs no check. */
  trusted: boolean;
}

export function createBlobs({ name, metrics, trusted }: BlobsOptions): Blobs {
  /** Until when a repository of a source is believed to answer honestly. */
  const honest = new LRUCache<string, number>({ max: 2000 });

  /** A web server that answers 200 to anything proves nothing: it would say yes to a digest that nobody can have. */
  async function requireHonesty(source: Source, repository: Repository, limits: Limits): Promise<void> {
    const key = `${source.endpoint.host} ${repository}`;
    if (trusted || (honest.get(key) ?? 0) > Date.now()) return;
    const nonsense = `sha256:${randomBytes(32).toString('hex')}` as Digest;
    try {
      const reply = await source.request(requestOf('HEAD', repository, nonsense), limits);
      reply.discard();
    } catch (error) {
      if (!(error instanceof UpstreamError) || error.failure !== 'object') throw error;
      honest.set(key, Date.now() + HONEST_LIFE_MS);
      return;
    }
    throw new UpstreamError(
      'source',
      'UNAVAILABLE',
      `${source.endpoint.host} claims to have every blob in ${repository}: it is no registry`,
    );
  }

  async function stat(source: Source, repository: Repository, digest: Digest, limits: Limits): Promise<Descriptor> {
    const reply = await source.request({ ...requestOf('HEAD', repository, digest), expected: [200, ...DOUBTFUL] }, limits);
    reply.discard();
    const length = lengthOf(reply);
    if (reply.status === 200 && headerDigest(reply) === digest && length !== undefined) return descriptor(digest, length);
    if (reply.status === 200 && length !== undefined && !isWebPage(reply)) {
      await requireHonesty(source, repository, limits);
      return descriptor(digest, length);
    }
    return statByGet(source, repository, digest, limits);
  }

  async function statByGet(source: Source, repository: Repository, digest: Digest, limits: Limits): Promise<Descriptor> {
    const first: RangeRequest = { start: 0, end: 0 };
    const expected = [200, 206, ...RANGE_REFUSED];
    let reply = await source.request({ ...requestOf('GET', repository, digest, first), expected }, limits);
    const total = parseContentRange(String(reply.headers['content-range'] ?? ''))?.size;
    const empty = reply.status === 416 && /^bytes \*\/0$/.test(String(reply.headers['content-range'] ?? ''));
    if (empty || (reply.status === 206 && total !== undefined)) {
      reply.discard();
      await requireHonesty(source, repository, limits);
      return descriptor(digest, empty ? 0 : (total ?? 0));
    }
    if (reply.status !== 200) {
      reply.discard();
      reply = await source.request(requestOf('GET', repository, digest), limits);
    }
    if (isWebPage(reply) && headerDigest(reply) !== digest) {
      reply.discard();
      throw webPageError(source.endpoint.host);
    }
    const length = lengthOf(reply);
    if (length === undefined) return descriptor(digest, await readSize(reply, digest, source.endpoint.host));
    reply.discard();
    if (headerDigest(reply) !== digest) await requireHonesty(source, repository, limits);
    return descriptor(digest, length);
  }

  /** The size of a blob whose upstream announces none: it is read. @throws UpstreamError UNAVAILABLE: too large, or wrong bytes */
  async function readSize(reply: Reply, digest: Digest, host: string): Promise<number> {
    const { algorithm, hex } = splitDigest(digest);
    const hash = createHash(algorithm);
    let size = 0;
    for await (const chunk of counted(reply.body)) {
      size += chunk.length;
      if (size > MAX_READ) throw new UpstreamError('object', 'UNAVAILABLE', `${host} does not announce the size of ${digest}`);
      hash.update(chunk);
    }
    if (hash.digest('hex') !== hex) throw new UpstreamError('object', 'UNAVAILABLE', `what ${host} sent for ${digest} has another digest`);
    return size;
  }

  async function open(
    source: Source,
    { repository, digest, range }: { repository: Repository; digest: Digest; range: RangeRequest | undefined },
    limits: Limits,
  ): Promise<Blob> {
    const { host } = source.endpoint;
    const expected = range === undefined ? [200] : [200, 206, ...RANGE_REFUSED];
    const reply = await source.request({ ...requestOf('GET', repository, digest, range), expected }, limits);
    // Of the registry itself every byte is checked anyhow.
    if (!source.isOrigin && isWebPage(reply) && headerDigest(reply) !== digest) {
      reply.discard();
      throw webPageError(host);
    }
    if (reply.status === 206) return partOf(reply, { digest, range, host });
    if (reply.status !== 200) {
      reply.discard();
      const size = /^bytes \*\/(\d{1,15})$/.exec(String(reply.headers['content-range'] ?? ''))?.[1];
      if (reply.status === 416 && size !== undefined)
        throw new UpstreamError('object', 'RANGE_INVALID', `${host} has nothing in that range`, { size: Number(size) });
      return open(source, { repository, digest, range: undefined }, limits);
    }
    const size = lengthOf(reply);
    return { digest, size, range: undefined, body: checked(reply.body, size, host) };
  }

  function partOf(reply: Reply, { digest, range, host }: { digest: Digest; range: RangeRequest | undefined; host: string }): Blob {
    const part = parseContentRange(String(reply.headers['content-range'] ?? ''));
    if (part === undefined || part.end < part.start || (range !== undefined && 'start' in range && part.start !== range.start)) {
      reply.discard();
      throw new UpstreamError('moment', 'UNAVAILABLE', `${host} sends another range than it was asked for`);
    }
    const { start, end, size } = part;
    return { digest, size, range: { start, end }, body: checked(reply.body, end - start + 1, host) };
  }

  /** The body, whose bytes are counted in the metrics. */
  function counted(body: Body, add?: (chunk: Uint8Array) => void): Body {
    let received = 0;
    return mapBody(body, {
      onChunk(chunk) {
        received += chunk.length;
        add?.(chunk);
      },
      onClose: () => metrics.received(name, received),
    });
  }

  /** The body, which fails when it ends before `length`. */
  function checked(body: Body, length: number | undefined, host: string): Body {
    let received = 0;
    const whole = counted(body, (chunk) => (received += chunk.length));
    return mapBody(whole, {
      onEnd() {
        if (length === undefined || received === length) return;
        throw new OciError('UNAVAILABLE', `${host} sent ${received} bytes instead of ${length}`, { origin: 'upstream' });
      },
    });
  }

  return { stat, open };
}

function descriptor(digest: Digest, size: number): Descriptor {
  return { digest, mediaType: BLOB_MEDIA_TYPE, size };
}

function lengthOf({ headers }: Reply): number | undefined {
  const length = Number(headers['content-length'] ?? Number.NaN);
  return Number.isSafeInteger(length) ? length : undefined;
}
