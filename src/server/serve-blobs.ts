import { BLOB_MEDIA_TYPE } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { parseRanges, resolveRanges, type ByteRange, type RangeRequest } from '../oci/range.ts';
import type { Repository } from '../oci/reference.ts';
import type { Blob, Registry } from '../oci/registry.ts';
import { headersOf, isKnown, sendNotModified, type Exchange } from './exchange.ts';
import { multipartBody, rangeBytes } from './send-parts.ts';
import { sendBody, type SendOptions } from './send.ts';

export interface BlobOptions {
  /** Called before a blob is read; returns the URL to redirect the client to (307), and headers for
   *  the response. It checks access itself. */
  redirect?: (repository: Repository, digest: Digest, exchange: RedirectRequest) => Promise<Redirection | undefined>;
  /** Sends blobs from files without reading them. */
  fileSender?: SendOptions['fileSender'];
}

export type RedirectRequest = Pick<Exchange, 'request' | 'head' | 'context'>;

export interface Redirection {
  /** Undefined: the blob is sent from here. */
  location: string | undefined;
  headers: readonly string[];
}

/** Answers GET and HEAD of a blob. */
export type BlobHandler = (exchange: Exchange, repository: Repository, digest: Digest) => Promise<void>;

/** Blobs, and ranges of them, from `registry`.
 *  @returns a handler that throws OciError as `Registry.blob` and `Registry.stat` do */
export function serveBlobs(registry: Registry, { redirect, fileSender }: BlobOptions): BlobHandler {
  return async (exchange, repository, digest) => {
    const { head, context, headers, response } = exchange;
    const known = isKnown(exchange, digest);
    const redirection = known ? undefined : await redirect?.(repository, digest, exchange);
    if (redirection !== undefined) exchange.headers = [...headers, ...redirection.headers];
    if (redirection?.location !== undefined) {
      const to = ['Location', redirection.location, 'Docker-Content-Digest', digest];
      response.writeHead(307, [...exchange.headers, ...to, 'Content-Length', '0']).end();
      return;
    }
    if (head || known) return answerHead(registry, exchange, { repository, digest });
    const ranges = rangesOf(exchange, digest);
    if (ranges !== undefined && ranges.length > 1) return answerRanges(registry, exchange, { repository, digest, ranges, fileSender });
    const range = ranges?.[0];
    await sendBlob(exchange, await registry.blob(repository, digest, range === undefined ? context : { ...context, range }), fileSender);
  };
}

interface Asked {
  repository: Repository;
  digest: Digest;
}

async function answerHead(registry: Registry, exchange: Exchange, { repository, digest }: Asked): Promise<void> {
  const descriptor = await registry.stat(repository, digest, exchange.context);
  if (isKnown(exchange, digest)) return sendNotModified(exchange, digest);
  exchange.response.writeHead(200, [...headersOf(exchange, descriptor), 'Accept-Ranges', 'bytes']).end();
}

/** The ranges that the client requests; undefined: the whole blob. */
function rangesOf({ request }: Exchange, digest: Digest): RangeRequest[] | undefined {
  const onlyIf = request.headers['if-range'];
  return onlyIf === undefined || onlyIf === `"${digest}"` ? parseRanges(request.headers.range) : undefined;
}

/** Sends several ranges as a multipart body, a single one plainly, and the whole blob if the ranges
 *  are no shorter (RFC 9110 §15.3.7.2).
 *  @throws OciError RANGE_INVALID: all ranges lie outside the blob */
async function answerRanges(
  registry: Registry,
  exchange: Exchange,
  { repository, digest, ranges: asked, fileSender }: Asked & { ranges: readonly RangeRequest[] } & Pick<BlobOptions, 'fileSender'>,
): Promise<void> {
  const { context, response } = exchange;
  const { size } = await registry.stat(repository, digest, context);
  const ranges = size > 0 ? resolveRanges(asked, size) : []; // an upstream may not know the size
  const [range] = ranges;
  const isWhole = range === undefined || rangeBytes(ranges) >= size;
  const open = (range: Required<ByteRange>): Promise<Blob> => registry.blob(repository, digest, { ...context, range });
  const blob = isWhole ? await registry.blob(repository, digest, context) : await open(range);
  if (isWhole || ranges.length === 1 || blob.range === undefined) return sendBlob(exchange, blob, fileSender);
  const { contentType, length, body } = multipartBody(blob, { size, ranges, open });
  response.writeHead(206, [...blobHeaders(exchange, digest), 'Content-Type', contentType, 'Content-Length', String(length)]);
  exchange.bytes = (await sendBody(response, body, { length })).bytes;
}

async function sendBlob(exchange: Exchange, { digest, size, range, body }: Blob, fileSender: BlobOptions['fileSender']): Promise<void> {
  const { response } = exchange;
  const length = range === undefined ? size : range.end - range.start + 1;
  const headers = [...blobHeaders(exchange, digest), 'Content-Type', BLOB_MEDIA_TYPE];
  if (length !== undefined) headers.push('Content-Length', String(length));
  if (range !== undefined) headers.push('Content-Range', `bytes ${range.start}-${range.end}/${size ?? '*'}`);
  response.writeHead(range === undefined ? 200 : 206, headers);
  exchange.bytes = (await sendBody(response, body, { length, fileSender })).bytes;
}

function blobHeaders({ headers, request }: Exchange, digest: Digest): string[] {
  const location = needsLocation(request) ? ['Location', request.url ?? ''] : [];
  return [...headers, ...location, 'Docker-Content-Digest', digest, 'ETag', `"${digest}"`, 'Accept-Ranges', 'bytes'];
}

/** Ollama reads a blob from the Location of the response, and fails if the response has none, even
 *  if its body is the blob (ollama/ollama#7231, #15512). */
function needsLocation({ headers }: Exchange['request']): boolean {
  return headers['user-agent']?.startsWith('ollama/') ?? false;
}
