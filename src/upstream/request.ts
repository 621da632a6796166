import { promisify } from 'node:util';
import { brotliDecompress, gunzip, inflate } from 'node:zlib';
import type { FairQueue } from '../async/fair-queue.ts';
import { readAll } from '../io/body.ts';
import { readWhole } from '../io/document.ts';
import type { OciErrorCode } from '../oci/error.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import type { Limits } from './call.ts';
import type { Ask, Endpoint, Reply } from './endpoint.ts';
import { outcomeOf, parseErrorBody, refusal, UpstreamError } from './errors.ts';
import type { LimitedKind, RateLimit } from './rate-limit.ts';

/** The upstream itself, or one of its mirrors. */
export interface Source {
  readonly endpoint: Endpoint;
  readonly isOrigin: boolean;
  /** Sends one request. Only a limited number of requests wait for the upstream at once.
   *  @throws OciError: the answer is none of `expected`, or there is none */
  request(this: void, request: SourceRequest, limits: Limits): Promise<Reply>;
  /** The body of a document. `reserve`: see `readWhole`. @throws OciError MANIFEST_INVALID: it has
   *  more than `maxBytes` */
  readDocument(this: void, reply: Reply, maxBytes: number, reserve?: (bytes: number) => Promise<void>): Promise<Buffer>;
}

export interface SourceRequest extends Omit<Ask, 'action'> {
  kind: LimitedKind;
  /** The error code for a 404. */
  absent: OciErrorCode;
  /** Statuses; 200 alone by default. */
  expected?: readonly number[];
}

export interface SourceOptions {
  /** The upstream's name. */
  name: string;
  endpoint: Endpoint;
  isOrigin: boolean;
  rateLimit: RateLimit;
  /** Requests that wait for their headers; their repositories take turns. */
  queue: FairQueue | undefined;
  metrics: Pick<RegistryMetrics, 'observeUpstream' | 'received'>;
  trusted: boolean;
}

const MAX_ERROR_SIZE = 64 * 1024;

export function createSource(options: SourceOptions): Source {
  const { name, endpoint, isOrigin, rateLimit, queue, metrics } = options;

  return {
    endpoint,
    isOrigin,

    async request(request, limits) {
      const { kind, repository } = request;
      const leave = await queue?.acquire(repository, AbortSignal.any([limits.signal, limits.deadline]));
      try {
        const settle = await rateLimit.enter(kind, endpoint.covers(repository) ? (repository.split('/', 1)[0] ?? '') : '', limits);
        try {
          const reply = await send(options, request, limits);
          settle(undefined);
          return reply;
        } catch (error) {
          settle(error);
          throw error;
        }
      } finally {
        leave?.();
      }
    },

    async readDocument(reply, maxBytes, reserve) {
      const bytes = await readWhole(reply.body, { maxBytes, size: sizeOf(reply), reserve });
      if (bytes === undefined)
        throw new UpstreamError(
          'object',
          'MANIFEST_INVALID',
          `${endpoint.host} sends more than ${maxBytes} bytes, the limit for such a document`,
        );
      metrics.received(name, bytes.length);
      return decode(bytes, reply, maxBytes);
    },
  };
}

async function send(options: SourceOptions, request: SourceRequest, limits: Limits): Promise<Reply> {
  const { name, endpoint, isOrigin, rateLimit, metrics } = options;
  const { kind, expected = [200], ...ask } = request;
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  try {
    const reply = await endpoint.ask({ ...ask, action: kind === 'lists' ? 'list' : 'pull' }, limits);
    if (kind === 'manifests' && isOrigin) rateLimit.observe(reply.headers);
    if (!expected.includes(reply.status)) throw await toRefusal(options, reply, request);
    metrics.observeUpstream(name, 'ok', seconds());
    return reply;
  } catch (error) {
    if (!limits.signal.aborted) metrics.observeUpstream(name, outcomeOf(error), seconds());
    throw error;
  }
}

/** The error for an unexpected answer. */
async function toRefusal(
  { endpoint, trusted }: SourceOptions,
  reply: Reply,
  { repository, absent, method }: SourceRequest,
): Promise<Error> {
  const { words, ofRegistry } = await readError(reply, method);
  const advice = endpoint.explainRefusal(repository);
  return refusal(reply, { host: endpoint.host, repository, absent, words, ofRegistry, trusted, advice });
}

async function readError(reply: Reply, method: string): Promise<{ words: string | undefined; ofRegistry: boolean }> {
  // Ingresses do not send this header; distribution and registries derived from it do, even
  // without a body.
  const named = reply.headers['docker-distribution-api-version'] !== undefined;
  const readable =
    method === 'GET' && /json|text\/plain/.test(mediaTypeOf(reply)) && Number(reply.headers['content-length'] ?? 0) <= MAX_ERROR_SIZE;
  if (!readable) {
    reply.discard();
    return { words: undefined, ofRegistry: named };
  }
  const body = await readAll(reply.body, MAX_ERROR_SIZE).catch(() => undefined); // the status is enough
  const { words, ofRegistry } = parseErrorBody(body ?? Buffer.alloc(0));
  return { words, ofRegistry: ofRegistry || named };
}

/** The length of the body that the answer announces, in bytes. */
function sizeOf({ headers }: Reply): number | undefined {
  const size = Number(headers['content-length'] ?? Number.NaN);
  return Number.isSafeInteger(size) && size >= 0 ? size : undefined;
}

const DECODERS: Record<string, (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>> = {
  gzip: promisify(gunzip),
  'x-gzip': promisify(gunzip),
  deflate: promisify(inflate),
  br: promisify(brotliDecompress),
};

/** Undoes a Content-Encoding that was not requested. If the bytes already are JSON, the header is
 *  wrong and is ignored. */
async function decode(bytes: Buffer, { headers }: Reply, maxBytes: number): Promise<Buffer> {
  const decoder =
    DECODERS[
      String(headers['content-encoding'] ?? '')
        .trim()
        .toLowerCase()
    ];
  if (decoder === undefined || /^\s*[{[]/.test(bytes.subarray(0, 64).toString('latin1'))) return bytes;
  return decoder(bytes, { maxOutputLength: maxBytes }).catch(() => bytes); // the caller detects that it is not a document
}

export function mediaTypeOf({ headers }: Pick<Reply, 'headers'>): string {
  const [type = ''] = String(headers['content-type'] ?? '').split(';', 1);
  return type.trim().toLowerCase();
}

/** Whether the answer is a web page, as closed mirrors, parked domains and single-page applications
 *  send for every request. */
export function isWebPage(reply: Pick<Reply, 'headers'>): boolean {
  return ['text/html', 'application/xhtml+xml'].includes(mediaTypeOf(reply));
}

export function webPageError(host: string): UpstreamError {
  return new UpstreamError('source', 'UNAVAILABLE', `${host} answers with a web page: it is not a registry, or no longer one`);
}
