import { Agent, request, type AgentOptions, type IncomingMessage, type RequestOptions } from 'node:http';
import type { LookupFunction, TcpNetConnectOpts, Socket } from 'node:net';
import { TLSSocket, type SecureContext } from 'node:tls';
import { MAX_RESPONSE_HEADERS, responseOf, type Transport, type TransportRequest, type TransportResponse } from '../transport.ts';
import { openPlain, openSecure } from './open.ts';
import { createRawSockets } from './raw.ts';
import type { OpenSocket, RawSockets } from './raw-socket.ts';

/** Connections to one host. The limit exceeds what all downloads may hold at once (see
 *  downloads.ts), so that tags can be resolved even then. */
export const CONNECTIONS = 512;
/** How long an unused connection is kept, in ms. */
export const KEEP_ALIVE_MS = 30_000;

/** Statuses of answers with long bodies; a few others never have a body, whatever length they
 *  announce. */
const HAVE_BODIES = new Set([200, 206]);

export interface RawTransportOptions {
  /** Milliseconds. */
  connectTimeout: number;
  /** Resolves names; `dns.lookup` by default. */
  lookup?: LookupFunction;
  /** Node's default, unless it is given. */
  secureContext?: SecureContext | undefined;
  /** Read all bodies with Node's parser. */
  plain?: boolean;
}

/** Sends requests over plain HTTP and reads long bodies straight from their sockets, at a third of
 *  the CPU time per byte of undici's parser and its chunks. Follows no redirects, but also sends
 *  requests to https. A request on a kept connection that the other end has just closed is sent
 *  again over another one. */
export function createRawTransport({ connectTimeout, lookup, secureContext, plain = false }: RawTransportOptions): Transport {
  const agentOptions = {
    keepAlive: true,
    maxSockets: CONNECTIONS,
    timeout: KEEP_ALIVE_MS,
    ...(lookup === undefined ? {} : { lookup }),
  };
  const sockets = { http: openSockets(plain, agentOptions, openPlain), https: openSockets(plain, agentOptions, openSecure(secureContext)) };

  async function send({ origin, path, method, headers, signal }: TransportRequest): Promise<TransportResponse> {
    const { hostname, port, protocol } = new URL(origin);
    const { agent, takeOver } = protocol === 'https:' ? sockets.https : sockets.http;
    const host = hostname.replace(/^\[|\]$/g, '');
    const options = {
      host,
      port,
      defaultPort: protocol === 'https:' ? 443 : 80,
      path,
      method,
      headers,
      maxHeaderSize: MAX_RESPONSE_HEADERS,
      agent,
    };
    return ask(options, { signal, connectTimeout, accept });

    /** Runs while 'response' is emitted, when a body can be taken over without closing the
     *  connection. */
    function accept(response: IncomingMessage): TransportResponse {
      const { headers: received, socket } = response;
      const status = response.statusCode ?? 0;
      const length = Number(received['content-length'] ?? 0);
      const body = method === 'GET' && HAVE_BODIES.has(status) ? takeOver(response, length) : undefined;
      if (body !== undefined) return { statusCode: status, headers: received, body, abandon: () => socket.destroy() };
      const parsed = responseOf({ statusCode: status, headers: received, body: response });
      // HEAD has no body, whatever length is announced: the connection is free.
      return method === 'HEAD' ? { ...parsed, abandon: () => void response.resume() } : parsed;
    }
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

function openSockets(plain: boolean, options: AgentOptions, open: OpenSocket): RawSockets {
  if (!plain) return createRawSockets(options, open);
  const agent = new Agent(options);
  agent.createConnection = (options) => open(options as TcpNetConnectOpts);
  return { agent, takeOver: () => undefined };
}

/** The other end closed a kept connection before it saw the request. */
class StaleConnection extends Error {}

interface Asking {
  signal: AbortSignal;
  connectTimeout: number;
  accept(this: void, response: IncomingMessage): TransportResponse;
}

function ask(options: RequestOptions, { signal, connectTimeout, accept }: Asking): Promise<TransportResponse> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<TransportResponse>();
  const asked = request(options);
  const abort = (): void => {
    asked.destroy(signal.reason as Error);
    reject(signal.reason); // a request that still waits for a connection emits nothing before it has one
  };
  signal.addEventListener('abort', abort, { once: true });
  asked.once('close', () => signal.removeEventListener('abort', abort));
  asked.once('socket', (socket: Socket) => limitConnecting(socket, connectTimeout));
  asked.once('response', (response) => resolve(accept(response)));
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
  for (const event of [socket instanceof TLSSocket ? 'secureConnect' : 'connect', 'close']) socket.once(event, () => clearTimeout(late));
}
