import { createServer, STATUS_CODES, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { setImmediate as turn } from 'node:timers/promises';
import { OciError } from '../oci/error.ts';
import type { Log } from '../telemetry/log.ts';
import { createConnections, type Connections } from './connections.ts';
import type { Sockets } from './handover.ts';
import { listeningSocket } from './ipc-pipe.ts';

/** Answers one request. If it throws, the client gets a 500 and the log a line; the process goes
 *  on. */
export type RequestHandler = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

export interface ListenAddress {
  host: string;
  /** 0 picks a free port. */
  port: number;
}

/** A certificate chain and its key, PEM. */
export interface TlsPair {
  cert: string | Buffer;
  key: string | Buffer;
}

/** In milliseconds unless stated otherwise. */
export interface ListenLimits {
  /** Until all headers of a request have arrived, and until a TLS handshake is complete. A silent
   *  connection is closed after this time too. */
  headers: number;
  /** Until the whole body of a request has arrived. */
  request: number;
  /** How long a connection may be idle between two requests. Longer than the idle timeouts of load
   *  balancers and clients, so that they close it first. */
  keepAlive: number;
  /** How long a client may accept no byte of its response. */
  idle: number;
  /** Bytes of all headers. */
  headerBytes: number;
  /** Characters of a request's target. */
  urlLength: number;
}

export interface ListenOptions {
  address: ListenAddress;
  /** More ports of the same host, with the same handler. */
  extraPorts?: readonly number[];
  handler: RequestHandler;
  log: Log;
  tls?: TlsPair;
  /** With `tls`: PEM certificate authorities. A client whose certificate none of them issued is
   *  disconnected. */
  clientCa?: string;
  /** Called with the address of every new connection, before anything is read from it; false closes
   *  it at once. */
  accept?: (address: string) => boolean;
  /** Called with the address of every connection that `accept` admitted, when it has closed. */
  closed?: (address: string) => void;
  /** Sockets that a predecessor handed over, by `host:port`: they are used instead of opening these
   *  addresses. */
  sockets?: Sockets;
  limits?: Partial<ListenLimits>;
}

export interface Listener extends AsyncDisposable {
  /** The address that the server listens on, with the actual port. */
  address: ListenAddress;
  /** `http://host:port`, or https. */
  url: string;
  /** Accepts no more connections, closes idle ones, and answers with `Connection: close`; resolves
   *  once all requests have ended. Those that still run after `graceMs` are cut. */
  drain(graceMs: number): Promise<void>;
  /** Cuts every connection. */
  close(): Promise<void>;
  /** The sockets that the server listens on, by the requested `host:port`: for a successor. */
  sockets(): Sockets;
  /** Uses this certificate for new connections. Only if `tls` was given. */
  setCertificate(tls: TlsPair): void;
}

const LIMITS: ListenLimits = {
  headers: 10_000,
  request: 60_000,
  keepAlive: 75_000,
  idle: 300_000,
  headerBytes: 16 * 1024,
  urlLength: 8 * 1024,
};

/** Serves HTTP, or with `tls` HTTPS. @throws OciError UNAVAILABLE: the address cannot be listened
 *  on */
export async function listen(options: ListenOptions): Promise<Listener> {
  const { address, extraPorts = [], tls, log, sockets = new Map() } = options;
  const limits = { ...LIMITS, ...options.limits };
  const servers = [address.port, ...extraPorts].map((port) => ({ port, server: makeServer(limits, tls, options.clientCa) }));
  const all = servers.map(({ server }) => server);
  for (const server of all) admitConnections(server, options);
  const connections = createConnections(all, { secure: tls !== undefined });
  for (const server of all) attach(server, { handler: options.handler, connections, limits, log });
  const close = async () => {
    const ended = Promise.all(all.map((server) => ending(server)));
    connections.closeAll();
    await ended;
  };
  try {
    for (const { port, server } of servers) await bind(server, { host: address.host, port }, sockets);
  } catch (error) {
    await close();
    throw error;
  }
  const taken = { host: address.host, port: (all[0]?.address() as AddressInfo | undefined)?.port ?? address.port };
  return {
    address: taken,
    url: `${tls === undefined ? 'http' : 'https'}://${formatAddress(taken)}`,
    drain: (graceMs) => drain(all, connections, graceMs),
    close,
    sockets: () =>
      new Map(
        servers.flatMap(({ port, server }) => {
          const socket = listeningSocket(server);
          return socket === undefined ? [] : [[formatAddress({ host: address.host, port }), socket] as const];
        }),
      ),
    setCertificate(pair) {
      for (const server of all)
        if ('setSecureContext' in server) (server as TlsServer).setSecureContext({ ...pair, ...verification(options.clientCa) });
    },
    [Symbol.asyncDispose]: close,
  };
}

function attach(server: Server, { handler, connections, limits, log }: Guard & { handler: RequestHandler }): void {
  const onRequest = guarded(handler, { connections, limits, log });
  server.on('request', onRequest);
  // Handlers that read a body send 100 Continue themselves (request-body.ts); Node would send it
  // before a handler can refuse the body.
  server.on('checkContinue', onRequest);
  server.on('clientError', (error: ClientError, socket) => refuse(error, socket, connections.isAnswering(socket)));
  server.on('tlsClientError', (error: Error, socket: TLSSocket) => {
    log.debug({ event: 'tls-handshake-failed', error }, 'TLS handshake failed');
    socket.destroy(); // nothing can be written to it
  });
}

async function drain(servers: readonly Server[], connections: Connections, graceMs: number): Promise<void> {
  // Stops listening before it closes connections: their clients would reconnect at once, and be
  // reset when the port closes.
  await untilQuiet();
  const ended = Promise.all(servers.map((server) => ending(server)));
  connections.startDraining();
  connections.closeIdle();
  const sweep = setInterval(() => connections.closeIdle(), SWEEP_INTERVAL_MS);
  const deadline = setTimeout(() => connections.closeAll(), graceMs);
  await ended;
  clearInterval(sweep);
  clearTimeout(deadline);
}

/** The interval at which idle connections are closed while the server drains. */
const SWEEP_INTERVAL_MS = 50;

/** `host:port`, an IPv6 host in brackets. */
export function formatAddress({ host, port }: ListenAddress): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}

function makeServer(limits: ListenLimits, tls: TlsPair | undefined, clientCa: string | undefined): Server {
  const options: ServerOptions = {
    headersTimeout: limits.headers,
    requestTimeout: Math.max(limits.headers, limits.request),
    keepAliveTimeout: limits.keepAlive,
    connectionsCheckingInterval: Math.min(2_000, limits.headers),
    maxHeaderSize: limits.headerBytes,
    noDelay: true,
    keepAlive: true,
    optimizeEmptyRequests: true,
  };
  const server =
    tls === undefined
      ? createServer(options)
      : createTlsServer({ ...options, ...tls, ...verification(clientCa), handshakeTimeout: limits.headers });
  server.maxRequestsPerSocket = 0;
  // Node counts a socket as active as long as the client accepts bytes, however slowly.
  server.timeout = limits.idle;
  return server;
}

function verification(clientCa: string | undefined) {
  return clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true };
}

/** Calls `accept` before Node handles a connection: with TLS, before the handshake. */
function admitConnections(server: Server, { accept, closed }: ListenOptions): void {
  if (accept === undefined) return;
  const own = server.listeners('connection') as ((socket: Socket) => void)[];
  server.removeAllListeners('connection');
  server.on('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? '';
    if (!accept(address)) {
      socket.destroy();
      return;
    }
    if (closed !== undefined) socket.once('close', () => closed(address));
    for (const listener of own) listener.call(server, socket);
  });
}

async function bind(server: Server, address: ListenAddress, sockets: Sockets): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  const socket = sockets.get(formatAddress(address));
  if (socket === undefined) server.listen(address, resolve);
  else server.listen(socket, resolve);
  try {
    await promise;
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = LISTEN_ERRORS[code ?? ''] ?? message;
    throw new OciError('UNAVAILABLE', `cannot listen on ${formatAddress(address)}: ${why}`, { cause });
  }
  server.off('error', reject);
}

const LISTEN_ERRORS: Record<string, string> = {
  EADDRINUSE: 'the port is in use by another process; stop that one or choose another port',
  EACCES: 'this user may not open the port; choose one above 1023',
  EADDRNOTAVAIL: 'this machine has no such address',
};

interface Guard {
  connections: Connections;
  limits: ListenLimits;
  log: Log;
}

function guarded(
  handler: RequestHandler,
  { connections, limits, log }: Guard,
): (request: IncomingMessage, response: ServerResponse) => void {
  const fail = (error: unknown, request: IncomingMessage, response: ServerResponse) => {
    log.error(
      { event: 'request-failed', error, method: request.method, path: request.url?.split('?', 1)[0] },
      'request failed unexpectedly',
    );
    if (response.headersSent) response.destroy();
    else response.writeHead(500, { 'content-type': 'text/plain; charset=utf-8' }).end('internal error\n');
  };
  const handle = (request: IncomingMessage, response: ServerResponse) => {
    if ((request.url ?? '').length > limits.urlLength) {
      response.shouldKeepAlive = false;
      response.writeHead(414, { 'content-type': 'text/plain; charset=utf-8' }).end('the URL is too long\n');
      return;
    }
    try {
      handler(request, response)?.catch((error: unknown) => fail(error, request, response));
    } catch (error) {
      fail(error, request, response);
    }
  };
  return (request, response) => connections.answer(request, response, () => handle(request, response));
}

type ClientError = NodeJS.ErrnoException & { rawPacket?: Buffer };

const TLS_HANDSHAKE = 0x16;
const PARSE_ERROR_STATUS: Record<string, number> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

/** Answers bytes that are not HTTP, including a TLS ClientHello: containerd tries HTTPS first, and
 *  falls back to plain HTTP when it reads an HTTP response. */
function refuse(error: ClientError, socket: Duplex, answering: boolean): void {
  if (!socket.writable || answering) {
    socket.destroy(); // a second status line would end up inside the body that is being sent
    return;
  }
  const status = PARSE_ERROR_STATUS[error.code ?? ''] ?? 400;
  const body =
    error.rawPacket?.[0] === TLS_HANDSHAKE
      ? 'this port speaks plain HTTP, and the client sent a TLS handshake: use http://\n'
      : `${STATUS_CODES[status]}\n`;
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
    () => socket.destroy(),
  );
}

/** Resolves after an idle turn of the event loop, or after a quarter of a second. A connection that
 *  the kernel holds and that was not accepted yet is reset when the socket closes, even if another
 *  process listens on the port too; after an idle turn there is most likely none. */
async function untilQuiet(): Promise<void> {
  const deadline = performance.now() + 250;
  for (let before = performance.now(), now = Infinity; now - before > QUIET_TURN && before < deadline;) {
    before = performance.now();
    await turn();
    now = performance.now();
  }
}

/** The longest turn of the event loop that counts as idle, in ms. */
const QUIET_TURN = 0.05;

/** Stops listening; resolves when the last connection has ended. */
async function ending(server: Server): Promise<void> {
  if (!server.listening) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => resolve());
  await promise;
}
