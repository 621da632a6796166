import type { IncomingMessage, ServerResponse } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';
import type { RequestHandler } from '../server/listen.ts';
import type { Log } from '../telemetry/log.ts';
import { reviewPod, type Outcome, type Review, type Reviewed } from './admission-review.ts';
import { createBodyBuffers } from './body-buffers.ts';
import type { Policy } from './policy.ts';
import { createFairSlots } from './fair-slots.ts';
import { REVIEW_PATH, withoutToken } from './review-path.ts';
import type { ReviewThread } from './review-thread.ts';

export interface ServeWebhookOptions extends Review {
  /** Whether a review that arrives at this path is from an API server. Other clients get no names
   *  of private images, since these are capabilities. */
  isTrusted: (path: string) => boolean;
  /** For reviews that are not trusted. */
  publicPolicy: Policy;
  /** Longer reviews are not read, in bytes. */
  maxReviewSize: number;
  /** Reviews large pods. */
  thread: ReviewThread;
  /** Called with the address of a client that sent a request that no API server sends. */
  violation: (address: string) => void;
  log: Log;
  observe: (outcome: Outcome, seconds: number) => void;
}

/** Reviews of up to this many bytes are parsed at once: it takes less than a millisecond. Most pods
 *  are far smaller. */
const SMALL_BYTES = 64 * 1024;
/** Large reviews that are read and parsed at the same time. */
const LARGE = { total: 8, perClient: 2, maxWaiting: 32 };
/** API servers wait 2 s for an answer. */
const PATIENCE_MS = 2_000;
/** How long the connection of a refused request stays open after its answer, so that the client can
 *  read the answer. Further bytes of the client are not read. */
const LINGER_MS = 1_000;
const LOG_INTERVAL_MS = 10_000;
/** The reason of all aborts here: without one, each would make an error with a stack. */
const ENDED = 'the request has ended';

/** Serves POST /mutate, with or without a token after it, and POST / until the configuration has a
 *  path. Every answer allows the pod, even an answer to something that is not a
 *  review.
 *
 *  A review with a uid is always answered with 200: an API server takes any other status for a
 *  failed call, which a failurePolicy of Fail turns into a denial. Any pod of the cluster can reach
 *  this port, so the cost of a request is bounded, and large reviews of one address never delay
 *  those of another. */
export function serveWebhook(options: ServeWebhookOptions): RequestHandler {
  const { maxReviewSize, thread, violation, observe, gateOpen } = options;
  const large = createFairSlots(LARGE);
  const buffers = createBodyBuffers({ size: maxReviewSize, kept: LARGE.total });
  const report = createReport(options.log);

  async function review(request: IncomingMessage, length: number, signal: AbortSignal): Promise<Reviewed | Refusal> {
    const isTrusted = options.isTrusted(pathOf(request));
    if (length <= SMALL_BYTES) {
      const body = Buffer.allocUnsafe(length);
      const size = await readBody(request, body, signal);
      const policy = isTrusted ? options.policy : options.publicPolicy;
      return typeof size === 'object' ? size : reviewPod(body.toString('utf8', 0, size), { policy, gateOpen });
    }
    const giveBack = await large.take(addressOf(request), signal);
    if (giveBack === undefined) return { status: 503 };
    const buffer = buffers.take();
    try {
      const size = await readBody(request, new Uint8Array(buffer), signal);
      const result =
        typeof size === 'object' ? size : await thread.review(new Uint8Array(buffer, 0, size), { gateOpen: gateOpen(), isTrusted });
      buffers.giveBack(buffer);
      return result;
    } catch (error) {
      return { status: 500, error }; // the thread may still read the buffer, which is therefore not used again
    } finally {
      giveBack();
    }
  }

  return async (request, response) => {
    const started = performance.now();
    // AbortSignal.timeout() would stay for the whole time: the garbage collector would have to trace
    // thousands of signals.
    const ended = new AbortController();
    const end = (): void => ended.abort(ENDED);
    const timer = setTimeout(end, PATIENCE_MS);
    response.once('close', end);
    const length = lengthOf(request);
    const result = refuse(request, length, maxReviewSize) ?? (await review(request, length, ended.signal));
    clearTimeout(timer);
    response.off('close', end);
    const isRefused = 'status' in result;
    const status = isRefused ? result.status : result.uid === '' ? 400 : 200;
    const { json, outcome } = isRefused ? reviewPod('', options) : result;
    if (outcome === 'error') report({ error: result.error, status, path: withoutToken(pathOf(request)) });
    observe(outcome, (performance.now() - started) / 1000);
    if (status === 200) {
      response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(json) }).end(json);
      return;
    }
    if (status < 500) violation(addressOf(request));
    await refuseAndClose(response, { status, json });
  };
}

function pathOf(request: IncomingMessage): string {
  return request.url?.split('?', 1)[0] ?? '';
}

function addressOf(request: IncomingMessage): string {
  return request.socket.remoteAddress ?? '';
}

/** Without a length a body counts as large. */
function lengthOf(request: IncomingMessage): number {
  return Number(request.headers['content-length'] ?? Infinity);
}

/** A request that is answered with another status than 200. */
interface Refusal {
  status: number;
  error?: unknown;
}

/** @returns why a body is not even read */
function refuse(request: IncomingMessage, length: number, maxReviewSize: number): Refusal | undefined {
  const path = pathOf(request);
  if (![REVIEW_PATH, '/'].includes(path) && !path.startsWith(`${REVIEW_PATH}/`)) return { status: 404 };
  if (request.method !== 'POST') return { status: 405 };
  const type = request.headers['content-type']?.split(';', 1)[0]?.trim().toLowerCase();
  if (type !== 'application/json') return { status: 415 };
  return length !== Infinity && length > maxReviewSize ? { status: 413 } : undefined;
}

/** @returns the size of the body in bytes, or a refusal if it does not fit `target`, or if the
 *  client has disconnected or is too slow */
async function readBody(request: IncomingMessage, target: Uint8Array, signal: AbortSignal): Promise<number | Refusal> {
  let size = 0;
  const { promise, resolve } = Promise.withResolvers<number | Refusal>();
  const take = (chunk: Buffer): void => {
    if (size + chunk.length > target.length) return resolve({ status: 413 });
    target.set(chunk, size);
    size += chunk.length;
  };
  const end = (): void => resolve(size);
  const stop = (): void => resolve({ status: 408 });
  request.on('data', take).once('end', end).once('error', stop);
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  const result = await promise;
  signal.removeEventListener('abort', stop);
  request.off('data', take).off('end', end).pause();
  return result;
}

/** The answer is complete by its content-length; its end, which closes the connection, comes
 *  later. */
async function refuseAndClose(response: ServerResponse, { status, json }: { status: number; json: string }): Promise<void> {
  const gone = new AbortController();
  response.once('close', () => gone.abort(ENDED));
  if (response.closed) return;
  response.shouldKeepAlive = false;
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(json) }).write(json);
  await delay(LINGER_MS, undefined, { signal: gone.signal, ref: false }).catch(() => undefined); // the client has disconnected
  response.end();
}

/** Logs a request that was no review, and then for a while only how many there were. */
function createReport(log: Log): (fields: { error: unknown; status: number; path: string | undefined }) => void {
  let next = 0;
  let suppressed = 0;
  return ({ error, status, path }) => {
    const time = performance.now();
    if (time < next) {
      suppressed++;
      return;
    }
    next = time + LOG_INTERVAL_MS;
    const more = { ...(error === undefined ? {} : { error }), ...(suppressed === 0 ? {} : { suppressed }) };
    log.warn({ event: 'review-refused', status, path, ...more }, 'a request was not a review of a pod; allowed it unchanged');
    suppressed = 0;
  };
}
