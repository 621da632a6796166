import type { IncomingMessage, ServerResponse } from 'node:http';
import { withDetach } from '../io/detachable-body.ts';
import { detachOfRequest } from './detach-body.ts';

/** The body of a request that a handler may refuse. */
export interface RequestBody {
  /** The bytes of the body, readable once, in batches of BATCH_SIZE unless they arrive slowly. A
   *  reader may stop early without closing the connection. */
  batches: AsyncIterable<readonly Uint8Array[]>;
  /** Reads the whole body, instead of `batches`.
   *  @returns undefined: it has more than `maxBytes`; the rest is not read
   *  @throws Error: the client has disconnected */
  all(this: void, maxBytes: number): Promise<Buffer | undefined>;
  /** Reads and drops the rest of the body, up to a limit: a client that is still sending would not
   *  read the response if the connection were closed. */
  drain(this: void): void;
}

/** Bytes that are handed on at once. */
const BATCH_SIZE = 256 * 1024;
/** How long fewer bytes wait for more: a store may end a request that sends nothing. */
const MAX_GATHER_MS = 1000;
/** How much of a refused body is still read, in bytes. */
const MAX_DRAINED = 64 * 2 ** 20;
const MAX_DRAIN_MS = 30_000;

/** A client that announced its body (`Expect: 100-continue`, RFC 9110 §10.1.1) gets 100 Continue
 *  when the first byte is read. If the body is refused before that, the connection closes after the
 *  response: the client may or may not send the body. */
export function openBody(request: IncomingMessage, response: ServerResponse): RequestBody {
  let isAwaited = /\b100-continue\b/i.test(request.headers.expect ?? '') && request.httpVersion === '1.1';
  const { shouldKeepAlive } = response;
  let isDetached = false;
  if (isAwaited) response.shouldKeepAlive = false;

  function invite(): void {
    if (!isAwaited) return;
    isAwaited = false;
    response.shouldKeepAlive = shouldKeepAlive;
    response.writeContinue();
  }

  return {
    batches: withDetach(
      {
        [Symbol.asyncIterator]() {
          invite();
          return readBatches(request);
        },
      },
      detachOfRequest(request, response, () => {
        isDetached = true;
        invite();
      }),
    ),
    all(maxBytes) {
      invite();
      return readAll(request, maxBytes);
    },
    drain() {
      if (isDetached || isAwaited || request.complete || request.destroyed) return;
      let left = MAX_DRAINED;
      const cut = () => request.socket.destroy();
      const late = setTimeout(cut, MAX_DRAIN_MS).unref();
      request.once('close', () => clearTimeout(late));
      request.on('data', (chunk: Buffer) => {
        left -= chunk.length;
        if (left < 0) cut();
      });
      request.resume();
    },
  };
}

/** Collects what arrives: a promise for each chunk would cost more than its bytes.
 *  @throws Error: the client has disconnected */
async function* readBatches(request: IncomingMessage): AsyncGenerator<readonly Uint8Array[]> {
  let [chunks, size] = [[] as Uint8Array[], 0];
  let end: { error?: Error } | undefined;
  let wake: () => void = () => undefined;

  const take = (chunk: Buffer): void => {
    chunks.push(chunk);
    size += chunk.length;
    if (size < BATCH_SIZE) return;
    request.pause();
    wake();
  };
  const succeed = (): void => {
    end ??= {};
    wake();
  };
  const fail = (error = new Error('the client has disconnected')): void => {
    end ??= { error };
    wake();
  };
  async function arrival(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    wake = resolve;
    const late = setTimeout(resolve, MAX_GATHER_MS);
    await promise;
    clearTimeout(late);
  }

  request.on('data', take).once('end', succeed).once('error', fail).once('close', fail);
  if (request.destroyed) fail();
  try {
    while (end === undefined || size > 0) {
      if (size < BATCH_SIZE && end === undefined) await arrival();
      if (end?.error !== undefined) throw end.error;
      const batch = chunks;
      [chunks, size] = [[], 0];
      if (request.isPaused()) request.resume();
      if (batch.length > 0) yield batch;
    }
  } finally {
    request.off('data', take).off('end', succeed).off('error', fail).off('close', fail).pause();
  }
}

function readAll(request: IncomingMessage, maxBytes: number): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const take = (chunk: Buffer): void => {
      size += chunk.length;
      chunks.push(chunk);
      if (size <= maxBytes) return;
      request.off('data', take);
      request.pause();
      resolve(undefined);
    };
    request.on('data', take);
    request.once('end', () => resolve(Buffer.concat(chunks)));
    request.once('error', reject);
    request.once('close', () => reject(new Error('the client has disconnected')));
  });
}
