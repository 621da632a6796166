import { request as requestPlain, type IncomingMessage, type RequestOptions } from 'node:http';
import type { LookupFunction, Socket } from 'node:net';
import { createRawLines } from './raw-socket.ts';
import { responseOf, type Way, type WayRequest, type WayResponse } from '../transport.ts';

/** To one host. More than what all fills may hold at once (see fills.ts): a tag is asked for even while they hold all of theirs. */
export const CONNECTIONS = 512;
/** How long a connection that nobody uses is kept, in ms. */
export const KEPT = 30_000;

export interface NearWayOptions {
  /** Milliseconds. */
  connectTimeout: number;
  /** Finds the addresses of names; absent: as `dns.lookup` does. */
  lookup?: LookupFunction;
}

/** The way over plain HTTP, to a service nearby that sends much: a byte costs a third of what undici's parser and its chunks cost. Redirects to
 *  https are followed too. What meets a kept connection that the other end has just closed is asked again on another. */
export function createNearWay({ connectTimeout, lookup }: NearWayOptions): Way {
  const { agent, takeOver } = createRawLines({
    keepAlive: true,
    maxSockets: CONNECTIONS,
    timeout: KEPT,
    ...(lookup === undefined ? {} : { lookup }),
  });

  async function send({ origin, path, method, headers, signal }: WayRequest): Promise<WayResponse> {
    const { hostname, port, protocol } = new URL(origin);
    const secure = protocol === 'https:';
    const { request } = secure ? await import('node:https') : { request: requestPlain };
    const host = hostname.replace(/^\[|\]$/g, '');
    const options = { host, port, path, method, headers, ...(secure ? {} : { agent }) };
    const response = await ask(request, options, { signal, connectTimeout });
    const { headers: received, socket } = response;
    const length = Number(received['content-length'] ?? 0);
    const body = method === 'GET' && !response.complete ? takeOver(response, length) : undefined;
    if (body === undefined) {
      const plain = responseOf({ statusCode: response.statusCode ?? 0, headers: received, body: response });
      // Whatever length it tells, nothing comes: the connection is free.
      return method === 'HEAD' ? { ...plain, abandon: () => void response.resume() } : plain;
    }
    return {
      statusCode: response.statusCode ?? 0,
      headers: received,
      body,
      abandon: () => socket.destroy(),
    };
  }

  return {
    proxied: false,
    async request(request) {
      for (;;) {
        try {
          return await send(request);
        } catch (error) {
          if (!(error instanceof StaleConnection)) throw error;
        }
      }
    },
  };
}

/** The other end closed a kept connection before it saw the request. */
class StaleConnection extends Error {}

function ask(
  request: typeof requestPlain,
  options: RequestOptions,
  { signal, connectTimeout }: { signal: AbortSignal; connectTimeout: number },
): Promise<IncomingMessage> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const asked = request(options);
  const abort = (): void => {
    asked.destroy(signal.reason as Error);
    reject(signal.reason); // one that still waits for a connection says nothing before it has one
  };
  signal.addEventListener('abort', abort, { once: true });
  asked.once('close', () => signal.removeEventListener('abort', abort));
  asked.once('socket', (socket: Socket) => limitConnecting(socket, connectTimeout));
  asked.once('response', resolve);
  asked.on('error', (error: NodeJS.ErrnoException) => {
    reject(asked.reusedSocket && error.code === 'ECONNRESET' && !signal.aborted ? new StaleConnection('', { cause: error }) : error);
  });
  asked.end();
  return promise;
}

function limitConnecting(socket: Socket, milliseconds: number): void {
  if (!socket.connecting) return;
  const late = setTimeout(() => {
    socket.destroy(Object.assign(new Error(`no connection within ${milliseconds} ms`), { code: 'ETIMEDOUT' }));
  }, milliseconds);
  for (const event of ['connect', 'close']) socket.once(event, () => clearTimeout(late));
}
