import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import type { Context } from '../oci/registry.ts';
import type { PullAnswer } from './access-log.ts';
import type { ParsedRequest } from './parse-request.ts';
import { API_VERSION } from './send-error.ts';

/** A request and its response. */
export interface Exchange {
  request: IncomingMessage;
  response: ServerResponse;
  /** Whether the request is a HEAD. */
  head: boolean;
  context: Context;
  /** Headers of every successful response to this request. */
  headers: readonly string[];
  /** Called at the end of a request for a manifest or a blob. */
  pulled: ((answer: PullAnswer) => void) | undefined;
  /** The digest of the manifest that is sent. */
  digest: Digest | undefined;
  /** The outcome that the cache has reported. */
  cached: 'hit' | 'miss' | 'stale';
  /** Body bytes that the client has accepted. */
  bytes: number;
  /** Set once the path has been parsed; a metric label with few values. */
  upstream: string;
  kind: ParsedRequest['kind'] | 'none';
  /** The host of `?ns=`. */
  namespace: string | undefined;
  stale: boolean;
}

export function openExchange(request: IncomingMessage, response: ServerResponse): Exchange {
  const exchange: Exchange = {
    request,
    response,
    head: request.method === 'HEAD',
    context: {
      signal: signalOf(response),
      answered(how) {
        if (how !== 'hit') exchange.cached = how;
      },
    },
    headers: API_VERSION,
    pulled: undefined,
    digest: undefined,
    cached: 'hit',
    bytes: 0,
    upstream: 'none',
    kind: 'none',
    namespace: undefined,
    stale: false,
  };
  return exchange;
}

/** A signal that aborts when the client disconnects. It is created at once: a getter of the context
 *  would give every context its own hidden class (V8), which lasts until the next full garbage
 *  collection with all that it references, and took half of the time of a small request. */
export function signalOf(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  const gone = () => {
    if (!response.writableFinished) controller.abort(new DOMException('the client has disconnected', 'AbortError'));
  };
  if (response.closed) gone();
  else response.once('close', gone);
  return controller.signal;
}

/** Headers of a manifest or of a whole blob. */
export function headersOf({ headers }: Exchange, { digest, mediaType, size }: Descriptor): string[] {
  return [...headers, 'Content-Type', mediaType, 'Content-Length', String(size), 'Docker-Content-Digest', digest, 'ETag', `"${digest}"`];
}

/** Whether the client already has the content (If-None-Match, RFC 9110 §13.1.2). */
export function isKnown({ request }: Exchange, digest: Digest): boolean {
  const header = request.headers['if-none-match'];
  return header !== undefined && (header.trim() === '*' || header.includes(`"${digest}"`));
}

export function sendNotModified({ response, headers }: Exchange, digest: Digest): void {
  response.writeHead(304, [...headers, 'Docker-Content-Digest', digest, 'ETag', `"${digest}"`]).end();
}

/** Sends a document with its headers; to HEAD, the headers alone. */
export function sendBytes(exchange: Exchange, headers: string[], bytes: Uint8Array): void {
  const { response, head } = exchange;
  response.writeHead(200, headers).end(head ? undefined : bytes);
  if (!head) exchange.bytes = bytes.length;
}
