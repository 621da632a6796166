import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';

export interface Tap extends AsyncDisposable {
  /** Instead of the server's own. */
  url: string;
  /** `METHOD /path`, in the order they came; empty it to count anew. */
  requests: string[];
}

/** Stands before an HTTP server and notes what it is asked. Headers go through as they are: signatures stay good. */
export async function startTap(target: string): Promise<Tap> {
  const { hostname, port } = new URL(target);
  const requests: string[] = [];
  const server = createServer((incoming, response) => {
    requests.push(`${incoming.method} ${incoming.url?.split('?')[0]}`);
    const { method, url: path, headers } = incoming;
    const outgoing = request({ hostname, port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      pipeline(answer, response).catch(() => response.destroy());
    });
    pipeline(incoming, outgoing).catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}
