import type { IncomingMessage, ServerResponse } from 'node:http';
import type { RequestHandler } from '../server/listen.ts';
import type { Log } from '../telemetry/log.ts';
import { reviewPod, type Outcome, type Review } from './admission-review.ts';

export interface ServeWebhookOptions extends Review {
  log: Log;
  observe: (outcome: Outcome, seconds: number) => void;
}

/** Bytes. An API server takes objects of 3 MiB, and a review holds two of them. */
const MAX_BODY = 8 * 2 ** 20;
/** Bytes of what is refused that are read all the same: many clients send all that they have before they look for an answer, and would
 *  see a reset instead of it. */
const MAX_REFUSED = 32 * 2 ** 20;

/** POST /mutate. Every answer, also to what is no review, allows: a pod is never denied. A review that has a uid is answered 200
 *  whatever is wrong with its pod, since to an API server another status is a failed call, which a failurePolicy may turn into a denial. */
export function serveWebhook(options: ServeWebhookOptions): RequestHandler {
  const { log, observe } = options;

  function answer(response: ServerResponse, status: number, json: string): void {
    if (status !== 200) response.shouldKeepAlive = false; // of a body that is far too long the rest is not read
    response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(json) }).end(json);
  }

  return async (request, response) => {
    const started = performance.now();
    const refusal = refuse(request);
    const body = await readBody(request, refusal === undefined ? MAX_BODY : 0);
    const status = refusal ?? (body === undefined ? 413 : 200);
    const { uid, json, outcome, error } = reviewPod(status === 200 ? (body ?? '') : '', options);
    if (outcome === 'error')
      log.warn({ error, status, path: request.url?.split('?', 1)[0] }, 'a request was no review of a pod; it is allowed as it is');
    observe(outcome, (performance.now() - started) / 1000);
    answer(response, status === 200 && uid === '' ? 400 : status, json);
  };
}

/** The status for what is not even read. */
function refuse(request: IncomingMessage): number | undefined {
  if (request.url?.split('?', 1)[0] !== '/mutate') return 404;
  if (request.method !== 'POST') return 405;
  const type = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
  if (type !== 'application/json') return 415;
  return Number(request.headers['content-length'] ?? 0) > MAX_BODY ? 413 : undefined;
}

/** undefined: it is longer than `limit`. */
async function readBody(request: IncomingMessage, limit: number): Promise<string | undefined> {
  let chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= limit) chunks.push(chunk);
    else chunks = [];
    if (size > MAX_REFUSED) break;
  }
  return size > limit ? undefined : Buffer.concat(chunks).toString();
}
