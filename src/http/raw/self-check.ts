import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, get, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createBody } from '../../io/body.ts';
import { openRawSockets } from './raw-socket.ts';

/** Somewhat more than Node or the kernel buffers at once, in bytes. */
const CHECKED = 3 * 1024 * 1024 + 12_345;
const TIMEOUT_MS = 5000;

let checked: Promise<boolean> | undefined;

/** Checks whether a long body that is taken over from Node's parser arrives complete: once per
 *  process, over one loopback connection. Never rejects. */
export function rawSocketsWork(): Promise<boolean> {
  return (checked ??= check().catch(() => false)); // on any failure, Node's parser is used
}

async function check(): Promise<boolean> {
  const bytes = Buffer.alloc(CHECKED, 'raw sockets');
  const server = createServer((_, response) => {
    response.setHeader('content-length', bytes.length);
    response.end(bytes);
  });
  const sockets = openRawSockets({ keepAlive: false });
  try {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const request = get({ host: '127.0.0.1', port, agent: sockets.agent });
    // After the timeout, the request fails once its connection is closed below; `once` no longer
    // listens by then.
    request.on('error', () => undefined);
    const [response] = (await once(request, 'response', { signal })) as [IncomingMessage];
    const body = sockets.takeOver(response, bytes.length);
    if (body === undefined) return false;
    const hash = createHash('sha256');
    for await (const chunk of createBody(body, signal)) hash.update(chunk);
    return hash.digest('hex') === createHash('sha256').update(bytes).digest('hex');
  } finally {
    sockets.agent.destroy();
    server.closeAllConnections();
    server.close();
  }
}
