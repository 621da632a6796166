import { BLOB_MEDIA_TYPE, OCI_INDEX, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { parseRanges, resolveRanges, type ByteRange, type RangeRequest } from '../oci/range.ts';
import { joinRepository, type Reference, type Repository, type Tag } from '../oci/reference.ts';
import type { Blob, Context, Registry } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';
import { API_VERSION, sendError } from './send-error.ts';
import { openExchange, type Exchange } from './exchange.ts';
import { createHeldDocuments } from './held-documents.ts';
import { sharedDocuments } from './shared-documents.ts';
import type { RequestHandler } from './listen.ts';
import { parseRequest, type ParsedRequest, type TagsPage } from './parse-request.ts';
import { multipartBody, rangeBytes } from './send-parts.ts';
import { sendBody, type SendOptions } from './send.ts';

/** A request and its response, for logs and metrics. */
export interface Served {
  /** The upstream's name; `unknown` if it is not configured, `none` if the request named none. */
  upstream: string;
  method: string;
  kind: ParsedRequest['kind'] | 'none';
  outcome: 'ok' | 'stale' | 'error' | 'gone';
  /** 499: the client disconnected before the response was complete. */
  status: number;
  /** Of the body. */
  bytes: number;
  seconds: number;
}

export interface ServeOptions {
  log: Log;
  /** The upstream's name for logs and metrics, by the first component of a repository; undefined: no upstream has it. */
  nameOf(this: void, first: string): string | undefined;
  /** The upstream whose images are named by this host (containerd's `?ns=`). */
  upstreamOf(host: string): string | undefined;
  /** Called before a blob is read; returns the URL to redirect the client to (307). It checks
   *  access itself. */
  redirect?: (repository: Repository, digest: Digest, context: Context) => Promise<string | undefined>;
  observe?: (served: Served) => void;
  /** Sends blobs from files without reading them. */
  fileSender?: SendOptions['fileSender'];
}

const PING = Buffer.from('{}');

/** The repository that a request is for, with its upstream's name in front. */
interface Target {
  repository: Repository;
  /** Sent with every response. */
  headers: readonly string[];
}

/** The read half of the OCI distribution specification 1.1 over `registry`. A client's Accept
 *  header never selects content: a reference must mean the same for every client. */
export function serveRegistry(registry: Registry, options: ServeOptions): RequestHandler {
  const documents = sharedDocuments(registry);
  const held = createHeldDocuments();

  return async (request, response) => {
    const started = performance.now();
    const exchange = openExchange(request, response);
    let failure: Failure | undefined;
    try {
      const parsed = parseRequest(request.method ?? '', request.url ?? '');
      exchange.kind = parsed.kind;
      await answer(exchange, parsed);
    } catch (error) {
      failure = { error, status: response.closed ? 499 : sendError(response, error, exchange) };
    }
    report(exchange, failure, started);
  };

  function answer(exchange: Exchange, parsed: ParsedRequest): Promise<void> | void {
    switch (parsed.kind) {
      case 'ping':
        return sendBytes(exchange, PING, [...API_VERSION, 'Content-Type', 'application/json']);
      case 'unsupported':
        exchange.response.shouldKeepAlive = false; // its body, if any, is not worth reading
        exchange.response.setHeader('Allow', parsed.allow);
        throw new OciError('UNSUPPORTED', parsed.message);
      case 'manifest':
        return answerManifest(exchange, locate(exchange, parsed), parsed.reference);
      case 'blob':
        return answerBlob(exchange, locate(exchange, parsed), parsed.digest);
      case 'tags':
        return answerTags(exchange, locate(exchange, parsed), parsed);
      case 'referrers':
        return answerReferrers(exchange, locate(exchange, parsed), parsed);
    }
  }

  function locate(exchange: Exchange, { repository, namespace }: { repository: Repository; namespace: string | undefined }): Target {
    if (namespace === undefined) {
      const slash = repository.indexOf('/');
      const first = slash === -1 ? repository : repository.slice(0, slash);
      exchange.upstream = options.nameOf(first) ?? 'unknown';
      return { repository, headers: API_VERSION };
    }
    const upstream = options.upstreamOf(namespace);
    exchange.upstream = upstream ?? 'unknown';
    if (upstream === undefined) {
      throw new OciError('NAME_UNKNOWN', `no upstream has the host ${namespace}; add it under registry.upstreams, with its url and hosts`);
    }
    return { repository: joinRepository(upstream, repository), headers: [...API_VERSION, 'OCI-Namespace', namespace] };
  }

  async function answerManifest(exchange: Exchange, target: Target, reference: Reference): Promise<void> {
    const { head, context } = exchange;
    if (head) {
      const descriptor = await registry.resolve(target.repository, reference, context);
      if (isKnown(exchange, descriptor.digest)) return sendNotModified(exchange, target, descriptor.digest);
      return sendHead(exchange, describe(descriptor, target));
    }
    const { descriptor, bytes, stale, open } = await registry.manifest(target.repository, reference, context);
    exchange.stale = stale;
    if (isKnown(exchange, descriptor.digest)) return sendNotModified(exchange, target, descriptor.digest);
    const headers = describe(descriptor, target);
    if (stale) headers.push('Warning', '110 - "Response is Stale"');
    const isHeld = open === undefined || held.hold(bytes, exchange.response);
    const copy = isHeld ? undefined : await open(context);
    if (copy === undefined) return sendDocument(exchange, bytes, headers);
    return sendCopy(exchange, copy, { size: bytes.length, headers }); // not awaited: this function would hold the bytes
  }

  /** @throws OciError TOOMANYREQUESTS */
  function sendDocument(exchange: Exchange, bytes: Uint8Array, headers: readonly string[]): void {
    const { response, head } = exchange;
    if (!head) held.require(bytes, response);
    response.writeHead(200, [...headers]).end(head ? undefined : bytes);
    if (!head) exchange.bytes = bytes.length;
  }

  /** Sends a manifest from its file, which takes little memory however slow the client is. */
  async function sendCopy(exchange: Exchange, { body }: Blob, { size, headers }: StoredManifest): Promise<void> {
    exchange.response.writeHead(200, [...headers]);
    const { bytes } = await sendBody(exchange.response, body, { length: size, fileSender: options.fileSender });
    exchange.bytes = bytes;
  }

  async function answerBlob(exchange: Exchange, target: Target, digest: Digest): Promise<void> {
    const { head, context, request, response } = exchange;
    const known = isKnown(exchange, digest);
    if (head || known) {
      const descriptor = await registry.stat(target.repository, digest, context);
      if (known) return sendNotModified(exchange, target, digest);
      return sendHead(exchange, [...describe(descriptor, target), 'Accept-Ranges', 'bytes']);
    }
    const location = await options.redirect?.(target.repository, digest, context);
    if (location !== undefined) {
      response.writeHead(307, [...target.headers, 'Location', location, 'Docker-Content-Digest', digest, 'Content-Length', '0']).end();
      return;
    }
    const onlyIf = request.headers['if-range'];
    const ranges = onlyIf === undefined || onlyIf === `"${digest}"` ? parseRanges(request.headers.range) : undefined;
    if (ranges !== undefined && ranges.length > 1) return answerRanges(exchange, target, { digest, ranges });
    const range = ranges?.[0];
    const blob = await registry.blob(target.repository, digest, range === undefined ? context : { ...context, range });
    await sendBlob(exchange, target, { blob, fileSender: options.fileSender });
  }

  /** Sends several ranges as a multipart body, a single one plainly, and the whole blob if the
   *  ranges are no shorter (RFC 9110 §15.3.7.2).
   *  @throws OciError RANGE_INVALID: all ranges lie outside the blob */
  async function answerRanges(
    exchange: Exchange,
    target: Target,
    asked: { digest: Digest; ranges: readonly RangeRequest[] },
  ): Promise<void> {
    const { context, response } = exchange;
    const { digest } = asked;
    const { size } = await registry.stat(target.repository, digest, context);
    const ranges = size > 0 ? resolveRanges(asked.ranges, size) : []; // an upstream may not know the size
    const [range] = ranges;
    const isWhole = range === undefined || rangeBytes(ranges) >= size;
    const open = (range: Required<ByteRange>): Promise<Blob> => registry.blob(target.repository, digest, { ...context, range });
    const blob = isWhole ? await registry.blob(target.repository, digest, context) : await open(range);
    if (isWhole || ranges.length === 1 || blob.range === undefined) {
      return sendBlob(exchange, target, { blob, fileSender: options.fileSender });
    }
    const { contentType, length, body } = multipartBody(blob, { size, ranges, open });
    const headers = [...target.headers, 'Content-Type', contentType, 'Content-Length', String(length), 'Docker-Content-Digest', digest];
    headers.push('ETag', `"${digest}"`, 'Accept-Ranges', 'bytes');
    response.writeHead(206, headers);
    exchange.bytes = (await sendBody(response, body, { length })).bytes;
  }

  async function answerTags(exchange: Exchange, target: Target, asked: { repository: Repository; page: TagsPage }): Promise<void> {
    const { bytes, next } = await documents.tagList(target.repository, asked, exchange.context);
    const headers = [...target.headers, 'Content-Type', 'application/json; charset=utf-8'];
    if (next !== undefined) headers.push('Link', `<${nextPage(exchange, asked.page.n ?? 0, next)}>; rel="next"`);
    sendDocument(exchange, bytes, [...headers, 'Content-Length', String(bytes.length)]);
  }

  async function answerReferrers(
    exchange: Exchange,
    target: Target,
    asked: { digest: Digest; artifactType: string | undefined },
  ): Promise<void> {
    const { digest, artifactType } = asked;
    const context = artifactType === undefined ? exchange.context : { ...exchange.context, artifactType };
    const { index, filtersApplied } = await documents.referrers(target.repository, digest, context);
    const headers = [...target.headers, 'Content-Type', OCI_INDEX];
    if (filtersApplied) headers.push('OCI-Filters-Applied', 'artifactType');
    sendDocument(exchange, index, [...headers, 'Content-Length', String(index.length)]);
  }

  function report(exchange: Exchange, failure: Failure | undefined, started: number): void {
    const { request, response, upstream, kind, bytes, stale } = exchange;
    const gone = response.closed && !response.writableFinished;
    const status = gone ? 499 : (failure?.status ?? response.statusCode);
    const served: Served = {
      upstream,
      method: request.method ?? '',
      kind,
      outcome: gone ? 'gone' : failure !== undefined ? 'error' : stale ? 'stale' : 'ok',
      status,
      bytes,
      seconds: (performance.now() - started) / 1000,
    };
    options.observe?.(served);
    logRequest(options.log, served, { path: request.url, error: failure?.error });
  }
}

interface StoredManifest {
  /** Bytes. */
  size: number;
  headers: readonly string[];
}

interface Failure {
  error: unknown;
  status: number;
}

/** Successful requests, client errors and disconnects are logged at level debug. */
function logRequest(log: Log, served: Served, { path = '', error }: { path: string | undefined; error: unknown }): void {
  const unexpected = error !== undefined && !(error instanceof OciError) && served.outcome !== 'gone';
  const level = unexpected ? 'error' : served.status >= 500 ? 'warn' : 'debug';
  if (!log.isLevelEnabled(level)) return;
  const entry = { ...served, path: path.split('?', 1)[0]?.slice(0, 512) };
  if (error === undefined) log[level]({ event: 'request-served', ...entry }, 'request served');
  else log[level]({ event: 'request-failed', ...entry, error }, unexpected ? 'request failed unexpectedly' : 'request failed');
}

/** Headers of a manifest or of a whole blob. */
function describe({ digest, mediaType, size }: Descriptor, target: Target): string[] {
  return [
    ...target.headers,
    'Content-Type',
    mediaType,
    'Content-Length',
    String(size),
    'Docker-Content-Digest',
    digest,
    'ETag',
    `"${digest}"`,
  ];
}

interface SentBlob extends Pick<ServeOptions, 'fileSender'> {
  blob: Blob;
}

async function sendBlob(exchange: Exchange, target: Target, { blob, fileSender }: SentBlob): Promise<void> {
  const { digest, size, range } = blob;
  const length = range === undefined ? size : range.end - range.start + 1;
  const headers = [...target.headers, 'Content-Type', BLOB_MEDIA_TYPE, 'Docker-Content-Digest', digest, 'ETag', `"${digest}"`];
  headers.push('Accept-Ranges', 'bytes');
  if (length !== undefined) headers.push('Content-Length', String(length));
  if (range !== undefined) headers.push('Content-Range', `bytes ${range.start}-${range.end}/${size ?? '*'}`);
  exchange.response.writeHead(range === undefined ? 200 : 206, headers);
  const { bytes } = await sendBody(exchange.response, blob.body, { length, fileSender });
  exchange.bytes = bytes;
}

function sendBytes(exchange: Exchange, bytes: Uint8Array, headers: readonly string[]): void {
  const { response, head } = exchange;
  response.writeHead(200, [...headers, 'Content-Length', String(bytes.length)]);
  response.end(head ? undefined : bytes);
  if (!head) exchange.bytes = bytes.length;
}

function sendHead({ response }: Exchange, headers: readonly string[]): void {
  response.writeHead(200, [...headers]).end();
}

function sendNotModified({ response }: Exchange, target: Target, digest: Digest): void {
  response.writeHead(304, [...target.headers, 'Docker-Content-Digest', digest, 'ETag', `"${digest}"`]).end();
}

/** The client already has the content (If-None-Match, RFC 9110 §13.1.2). */
function isKnown({ request }: Exchange, digest: Digest): boolean {
  const header = request.headers['if-none-match'];
  return header !== undefined && (header.trim() === '*' || header.includes(`"${digest}"`));
}

/** Relative, so that it is valid for any host name and port that clients use. */
function nextPage({ request }: Exchange, n: number, last: Tag): string {
  const [path = '', query] = (request.url ?? '').split('?', 2);
  const parameters = new URLSearchParams(query);
  parameters.set('n', String(n));
  parameters.set('last', last);
  return `${path}?${parameters.toString()}`;
}
