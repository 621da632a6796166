import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

export interface Connections {
  /** Counts a request until its response has been sent or its client has disconnected. */
  answer(request: IncomingMessage, response: ServerResponse): void;
  isAnswering(socket: Duplex): boolean;
  /** From now on every response ends its connection. */
  startDraining(): void;
  closeIdle(): void;
  closeAll(): void;
}

interface Connection {
  /** Responses in progress, including those queued behind another one (pipelining). */
  responses: Set<ServerResponse>;
  /** Whether a request has arrived. */
  used: boolean;
  /** When it was opened, in ms on the process's clock. */
  opened: number;
}

/** How long a connection may take to send its first request while the server drains, in ms. */
const FIRST_REQUEST = 1_000;

/** Tracks every connection of the servers. Unlike Node, it does not count a new connection as idle,
 *  and a response that is queued behind another one emits 'close' when its client disconnects. */
export function createConnections(servers: readonly Server[], { secure }: { secure: boolean }): Connections {
  const sockets = new Set<Socket>();
  const known = new Map<Duplex, Connection>();
  let draining = false;

  function add(socket: Socket): void {
    const connection: Connection = { responses: new Set(), used: false, opened: performance.now() };
    known.set(socket, connection);
    socket.once('close', () => {
      known.delete(socket);
      for (const response of connection.responses) if (response.socket === null) response.emit('close');
    });
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
    answer(request, response) {
      if (draining) response.shouldKeepAlive = false;
      const connection = known.get(request.socket);
      if (connection === undefined) return;
      const { responses } = connection;
      connection.used = true;
      responses.add(response);
      response.once('close', () => responses.delete(response));
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
