import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

export interface Connections {
  /** Counts a request until its response has been sent or its client has disconnected. Calls `handle`
   *  when all earlier requests of the connection have their responses, and not at all if the client
   *  has disconnected by then: it may have sent hundreds of requests at once (pipelining). */
  answer(request: IncomingMessage, response: ServerResponse, handle: () => void): void;
  isAnswering(socket: Duplex): boolean;
  /** From now on every response ends its connection. */
  startDraining(): void;
  closeIdle(): void;
  closeAll(): void;
}

interface Connection {
  /** Responses in progress, including those queued behind another one (pipelining). */
  responses: Set<ServerResponse>;
  /** Starts the queued ones, in order. */
  queued: (() => void)[];
  /** Whether a request has arrived. */
  used: boolean;
  /** When it was opened, in ms on the process's clock. */
  opened: number;
}

/** Requests that may wait on one connection. No known client of registries sends a second one before
 *  it has the response to the first. */
const MAX_QUEUED = 1_000;
/** How long a connection may take to send its first request while the server drains, in ms. */
const FIRST_REQUEST = 1_000;

/** Tracks every connection of the servers. Unlike Node, it does not count a new connection as idle,
 *  and works on one request of a connection at a time. */
export function createConnections(servers: readonly Server[], { secure }: { secure: boolean }): Connections {
  const sockets = new Set<Socket>();
  const known = new Map<Duplex, Connection>();
  let draining = false;

  function add(socket: Socket): void {
    const connection: Connection = { responses: new Set(), queued: [], used: false, opened: performance.now() };
    known.set(socket, connection);
    socket.once('close', () => known.delete(socket));
  }

  function closeIdle(): void {
    const tooLate = performance.now() - FIRST_REQUEST;
    for (const [socket, { responses, used, opened }] of known) {
      if (responses.size === 0 && (used || opened < tooLate)) socket.destroy();
    }
  }

  for (const server of servers) {
    server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      if (!secure) add(socket);
    });
    if (secure) server.on('secureConnection', add);
    // close() calls this while the port still listens: those clients would reconnect to it at once.
    server.closeIdleConnections = () => undefined;
  }

  return {
    answer(request, response, handle) {
      if (draining) response.shouldKeepAlive = false;
      const { socket } = request;
      const connection = known.get(socket);
      if (connection === undefined) return handle();
      const { responses, queued } = connection;
      connection.used = true;
      responses.add(response);
      response.once('close', () => {
        responses.delete(response);
        if (!socket.destroyed) queued.shift()?.();
      });
      if (responses.size === 1) handle();
      else if (queued.push(handle) > MAX_QUEUED) socket.destroy();
    },
    isAnswering: (socket) => (known.get(socket)?.responses.size ?? 0) > 0,
    startDraining() {
      draining = true;
    },
    closeIdle,
    closeAll() {
      for (const socket of sockets) socket.destroy();
    },
  };
}
