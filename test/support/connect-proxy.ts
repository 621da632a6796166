import { createServer } from 'node:http';
import { connect, type Socket } from 'node:net';
import { listenOnLoopback, type LocalServer } from './http.ts';

export interface ConnectProxy extends LocalServer {
  /** The requested hosts, such as `login.example.com:443`. */
  asked: string[];
}

/** An HTTP proxy that connects every requested host to one port of this machine, so that a server
 *  can act as any public host. */
export async function startConnectProxy(port: number): Promise<ConnectProxy> {
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer().on('connect', (request, client: Socket) => {
    asked.push(request.url ?? '');
    const inner = connect(port, '127.0.0.1', () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n');
      client.pipe(inner).pipe(client);
    });
    for (const socket of [client, inner]) {
      sockets.add(socket);
      const end = (): void => void [client.destroy(), inner.destroy(), sockets.delete(socket)];
      socket.on('error', end).on('close', end);
    }
  });
  const listening = await listenOnLoopback(server);
  return {
    ...listening,
    asked,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await listening[Symbol.asyncDispose]();
    },
  };
}
