import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { Agent, createServer, request, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { takeLongBody } from './long-body.ts';

/** Somewhat more than Node or the kernel buffers at once, in bytes. */
const CHECKED = 3 * 1024 * 1024 + 12_345;
const TIMEOUT_MS = 5000;

let works: boolean | undefined;
let checking: Promise<boolean> | undefined;

/** Whether long bodies can be read by `takeLongBody`; false while that is still being checked. */
export function longBodiesWork(): boolean {
  void checkLongBodies();
  return works === true;
}

/** Checks whether long and short bodies arrive complete, one after the other over one loopback
 *  connection: once per process. Never rejects. */
export function checkLongBodies(): Promise<boolean> {
  checking ??= check()
    .catch(() => false) // on any failure, bodies are read as usual
    .then((result) => (works = result));
  return checking;
}

async function check(): Promise<boolean> {
  const server = createServer((incoming, response) => void digestOf(incoming).then((digest) => response.end(digest)));
  let connections = 0;
  server.on('connection', () => connections++);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    for (const bytes of [CHECKED, 10, CHECKED, 200_000].map((size) => Buffer.alloc(size, 'long bodies'))) {
      const asked = request({ host: '127.0.0.1', port, agent, method: 'POST', signal });
      asked.on('error', () => undefined); // after the timeout, when `once` no longer listens
      asked.end(bytes);
      const [answer] = (await once(asked, 'response', { signal })) as [IncomingMessage];
      if ((await text(answer)) !== createHash('sha256').update(bytes).digest('hex')) return false;
    }
    return connections === 1;
  } finally {
    agent.destroy();
    server.closeAllConnections();
    server.close();
  }
}

/** @returns the digest of the body in hex; nothing if it is long and was not taken over */
async function digestOf(incoming: IncomingMessage): Promise<string> {
  const hash = createHash('sha256');
  const take = (bytes: Uint8Array): void => void hash.update(bytes);
  await Promise.resolve(); // as takeLongBody requires
  const ended = Promise.withResolvers<void>();
  const feed = takeLongBody(incoming, { take, end: ended.resolve });
  if (feed === undefined) incoming.on('data', take).once('end', ended.resolve);
  await ended.promise;
  feed?.close();
  return feed === undefined && incoming.headers['content-length'] === String(CHECKED) ? '' : hash.digest('hex');
}
