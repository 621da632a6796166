import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, get } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createBody, type BodySource } from '../../io/body.ts';
import { openPlain } from './open.ts';
import { openRawSockets, type RawSockets } from './raw-socket.ts';

/** Somewhat more than Node or the kernel buffers at once, in bytes. */
const CHECKED = 3 * 1024 * 1024 + 12_345;
const TIMEOUT_MS = 5000;

let checked: Promise<boolean> | undefined;

/** Checks whether long bodies that are taken over from Node's parser arrive complete, one after the
 *  other over one loopback connection: once per process. Never rejects. */
export function rawSocketsWork(): Promise<boolean> {
  return (checked ??= check().catch(() => false)); // on any failure, Node's parser is used
}

async function check(): Promise<boolean> {
  const bytes = Buffer.alloc(CHECKED, 'raw sockets');
  const server = createServer((_, response) => {
    response.setHeader('content-length', bytes.length);
    response.end(bytes);
  });
  let connections = 0;
  server.on('connection', () => connections++);
  const sockets = openRawSockets({ keepAlive: true, maxSockets: 1 }, openPlain);
  try {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const ask = () => digestOf(sockets, port, signal);
    const digest = createHash('sha256').update(bytes).digest('hex');
    return (await ask()) === digest && (await ask()) === digest && connections === 1;
  } finally {
    sockets.agent.destroy();
    server.closeAllConnections();
    server.close();
  }
}

async function digestOf(sockets: RawSockets, port: number, signal: AbortSignal): Promise<string | undefined> {
  const request = get({ host: '127.0.0.1', port, agent: sockets.agent });
  // After the timeout, the request fails once its connection is closed; `once` no longer listens by then.
  request.on('error', () => undefined);
  let body: BodySource | undefined;
  request.once('response', (response) => (body = sockets.takeOver(response, CHECKED)));
  await once(request, 'response', { signal });
  if (body === undefined) return undefined;
  const hash = createHash('sha256');
  for await (const chunk of createBody(body, signal)) hash.update(chunk);
  return hash.digest('hex');
}
