import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface LocalServer extends AsyncDisposable {
  /** http://HOST:PORT or https://HOST:PORT. */
  url: string;
  port: number;
}

/** Starts an HTTP or HTTPS server on a free port of `host`. Disposing it cuts its connections. */
export async function listenOnLoopback(server: Server, host = '127.0.0.1'): Promise<LocalServer> {
  server.listen(0, host);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    url: `${'setSecureContext' in server ? 'https' : 'http'}://${host}:${port}`,
    port,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
