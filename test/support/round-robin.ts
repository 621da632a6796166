import { connect, createServer, type Socket } from 'node:net';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

export interface RoundRobin extends AsyncDisposable {
  /** 127.0.0.1:PORT */
  host: string;
}

/** One address for several servers, as a Service is: each connection goes to the next of them. */
export async function startRoundRobin(hosts: readonly string[]): Promise<RoundRobin> {
  const sockets = new Set<Socket>();
  let next = 0;
  const server = createServer((client) => {
    const [host = '', port = ''] = hosts[next++ % hosts.length]?.split(':') ?? [];
    const target = connect(Number(port), host);
    for (const [one, other] of [
      [client, target],
      [target, client],
    ] as const) {
      sockets.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => sockets.delete(one));
      one.pipe(other);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
