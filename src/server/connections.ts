import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

export interface Connections {
  add(socket: Socket): void;
  /** Counts a request until its response has been sent or its client is gone. */
  answer(request: IncomingMessage, response: ServerResponse): void;
  isAnswering(socket: Duplex): boolean;
  /** From now on every response ends its connection. */
  startDraining(): void;
}

/** Knows which responses are under way on which socket. Node tells only the response whose turn it is that its client is
 *  gone; those that are queued behind it (pipelining) are told here, by their 'close'. */
export function createConnections(): Connections {
  const running = new WeakMap<Duplex, Set<ServerResponse>>();
  let draining = false;

  return {
    add(socket) {
      const responses = new Set<ServerResponse>();
      running.set(socket, responses);
      socket.once('close', () => {
        for (const response of responses) if (response.socket === null) response.emit('close');
      });
    },
    answer(request, response) {
      if (draining) response.shouldKeepAlive = false;
      const responses = running.get(request.socket);
      if (responses === undefined) return;
      responses.add(response);
      response.once('close', () => responses.delete(response));
    },
    isAnswering: (socket) => (running.get(socket)?.size ?? 0) > 0,
    startDraining() {
      draining = true;
    },
  };
}
