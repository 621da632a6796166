import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Throttle } from '../io/throttle.ts';
import { BLOB_MEDIA_TYPE } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import { parseRange, resolveRange, type ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';
import type { RequestHandler } from './listen.ts';
import { splitTarget } from './parse-request.ts';
import { sendBody, type SendOptions } from './send.ts';

export interface SharedBlobsOptions {
  log: Log;
  /** The permission of the ticket in a request target; undefined: it has no valid ticket. */
  admit(this: void, target: string): { digest: Digest; size: number } | undefined;
  /** Undefined: this node neither has the blob nor is receiving it. */
  find(
    this: void,
    digest: Digest,
    signal: AbortSignal,
  ): Promise<{ open(range: ByteRange | undefined, signal: AbortSignal): Promise<Blob | undefined> } | undefined>;
  /** Proves that this process has the key of its node. */
  prove(this: void, nonce: string): string;
  throttle: Throttle;
  /** Bytes that a node has received from this one. */
  sent(this: void, bytes: number): void;
  fileSender: SendOptions['fileSender'];
}

const NONCE = /^[0-9a-f]{16,64}$/;

/** Serves the blobs of this node to other nodes with tickets: GET /shared/<digest>?…. GET /alive
 *  shows the registry and other nodes that this node can be reached. */
export function serveSharedBlobs(options: SharedBlobsOptions): RequestHandler {
  return async (request, response) => {
    const target = request.url ?? '';
    const { path, query } = splitTarget(target);
    if (request.method !== 'GET') return refuse(response, 405, 'only GET');
    if (path === '/alive') return answerAlive(response, new URLSearchParams(query).get('nonce'), options);
    const ticket = options.admit(target);
    if (ticket === undefined) return refuse(response, 403, 'no valid ticket');
    await answerBlob(request, response, { ...options, ...ticket });
  };
}

function answerAlive(response: ServerResponse, nonce: string | null, { prove }: SharedBlobsOptions): void {
  const body = nonce !== null && NONCE.test(nonce) ? prove(nonce) : 'ok';
  response.writeHead(200, { 'content-type': 'text/plain', 'content-length': body.length, 'cache-control': 'no-store' }).end(body);
}

/** Sends the head before the first byte has arrived: a node that waits for a slow upstream must not
 *  look unreachable. */
async function answerBlob(
  request: IncomingMessage,
  response: ServerResponse,
  { digest, size, find, throttle, fileSender, sent, log }: SharedBlobsOptions & { digest: Digest; size: number },
): Promise<void> {
  const controller = new AbortController();
  response.once('close', () => controller.abort(new DOMException('the node is gone', 'AbortError')));
  const { signal } = controller;
  try {
    const asked = parseRange(request.headers.range);
    const range = asked === undefined ? undefined : resolveRange(asked, size);
    const shared = await find(digest, signal);
    if (shared === undefined) return refuse(response, 404, 'this node does not have the blob');
    const length = range === undefined ? size : range.end - range.start + 1;
    const part = range === undefined ? [] : ['Content-Range', `bytes ${range.start}-${range.end}/${size}`];
    response.writeHead(range === undefined ? 200 : 206, ['Content-Type', BLOB_MEDIA_TYPE, 'Content-Length', String(length), ...part]);
    response.flushHeaders();
    const blob = await shared.open(range, signal);
    if (blob === undefined || (range !== undefined && blob.range === undefined)) {
      response.destroy();
      return;
    }
    const { bytes } = await sendBody(response, throttle.slow(blob.body, signal), { length, fileSender });
    sent(bytes);
  } catch (error) {
    if (signal.aborted) return;
    log.debug({ event: 'shared-blob-cut', digest, error }, 'a blob for another node was cut');
    if (response.headersSent) response.destroy();
    else refuse(response, isOciError(error, 'RANGE_INVALID') ? 416 : 503, 'the blob cannot be read');
  }
}

function refuse(response: ServerResponse, status: number, message: string): void {
  response.shouldKeepAlive = status < 405;
  response.writeHead(status, { 'content-type': 'text/plain', 'content-length': message.length }).end(message);
}
