import { Agent, request as requestPlain, type IncomingMessage, type RequestOptions } from 'node:http';
import type { LookupFunction, Socket } from 'node:net';
import { MAX_RESPONSE_HEADERS, responseOf, type Transport, type TransportRequest, type TransportResponse } from '../transport.ts';
import { createRawSockets } from './raw.ts';
import type { RawSockets } from './raw-socket.ts';

/** Connections to one host. The limit exceeds what all downloads may hold at once (see
 *  downloads.ts), so that tags can be resolved even then. */
export const CONNECTIONS = 512;
/** How long an unused connection is kept, in ms. */
export const KEEP_ALIVE_MS = 30_000;

export interface RawTransportOptions {
  /** Milliseconds. */
  connectTimeout: number;
  /** Resolves names; `dns.lookup` by default. */
  lookup?: LookupFunction;
  /** Read all bodies with Node's parser. */
  plain?: boolean;
}

/** Sends requests over plain HTTP and reads long bodies straight from their sockets, at a third of
 *  the CPU time per byte of undici's parser and its chunks. Follows no redirects, but also sends
 *  requests to https. A request on a kept connection that the other end has just closed is sent
 *  again over another one. */
export function createRawTransport({ connectTimeout, lookup, plain = false }: RawTransportOptions): Transport {
  const { agent, takeOver } = openSockets(plain, {
    keepAlive: true,
    maxSockets: CONNECTIONS,
    timeout: KEEP_ALIVE_MS,
    ...(lookup === undefined ? {} : { lookup }),
  });

  async function send({ origin, path, method, headers, signal }: TransportRequest): Promise<TransportResponse> {
    const { hostname, port, protocol } = new URL(origin);
    const secure = protocol === 'https:';
    const { request } = secure ? await import('node:https') : { request: requestPlain };
    const host = hostname.replace(/^\[|\]$/g, '');
    const connection = secure ? (lookup === undefined ? {} : { lookup }) : { agent };
    const options = { host, port, path, method, headers, maxHeaderSize: MAX_RESPONSE_HEADERS, ...connection };
    const response = await ask(request, options, { signal, connectTimeout });
    const { headers: received, socket } = response;
    const length = Number(received['content-length'] ?? 0);
    const body = method === 'GET' && !response.complete ? takeOver(response, length) : undefined;
    if (body === undefined) {
      const parsed = responseOf({ statusCode: response.statusCode ?? 0, headers: received, body: response });
      // HEAD has no body, whatever length is announced: the connection is free.
      return method === 'HEAD' ? { ...parsed, abandon: () => void response.resume() } : parsed;
    }
    return { statusCode: response.statusCode ?? 0, headers: received, body, abandon: () => socket.destroy() };
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

function openSockets(plain: boolean, options: ConstructorParameters<typeof Agent>[0] & object): RawSockets {
  return plain ? { agent: new Agent(options), takeOver: () => undefined } : createRawSockets(options);
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
    reject(signal.reason); // a request that still waits for a connection emits nothing before it has one
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
