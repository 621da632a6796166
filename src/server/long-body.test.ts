import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { Agent, createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { statuses, talk } from '../../test/support/raw-http.ts';
import { checkLongBodies } from './long-body-check.ts';
import { openBody } from './request-body.ts';

const MIB = 2 ** 20;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Answers with the digest of the body. `late`: the reader begins late; `slow`: it rests after each
 *  batch; `first`: it reads one batch, and the answer is 400. */
async function answer(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
  const hash = createHash('sha256');
  if (incoming.url === '/late') await sleep(50);
  const body = openBody(incoming, response);
  for await (const batch of body.batches) {
    for (const bytes of batch) hash.update(bytes);
    if (incoming.url === '/slow') await sleep(5);
    if (incoming.url === '/first') break;
  }
  body.drain();
  response.writeHead(incoming.url === '/first' ? 400 : 200).end(hash.digest('hex'));
}

const failed: unknown[] = [];
const server = createServer();
const take = (incoming: IncomingMessage, response: ServerResponse) =>
  void answer(incoming, response).catch((error: unknown) => failed.push(error));
server.on('request', take).on('checkContinue', take);
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const { port } = server.address() as AddressInfo;
const agent = new Agent({ keepAlive: true, maxSockets: 1 });

before(async () => {
  assert.ok(await checkLongBodies(), 'this version of Node allows long bodies to bypass the parser');
});
after(() => {
  agent.destroy();
  server.closeAllConnections();
  server.close();
});

async function send(bytes: Buffer, path = '/', options: { agent?: Agent; headers?: Record<string, string> } = {}) {
  const asked = request({ port, path, method: 'PATCH', agent, ...options });
  asked.end(bytes);
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return { status: response.statusCode, digest: Buffer.concat(await response.toArray()).toString() };
}

test('long and short bodies arrive byte for byte, one after the other over one connection', async () => {
  let connections = 0;
  server.on('connection', () => connections++);
  for (const size of [8 * MIB, 0, 5, MIB, MIB + 1, 100_000, 3 * MIB + 7, 2 * MIB]) {
    const bytes = randomBytes(size);
    assert.equal((await send(bytes)).digest, sha256(bytes), `${size} bytes`);
  }
  assert.equal(connections, 1);
});

test('a reader that is slower than the client gets all bytes, and the client waits', async () => {
  const bytes = randomBytes(12 * MIB);
  assert.equal((await send(bytes, '/slow')).digest, sha256(bytes));
});

test('bytes that arrive before the reader begins are not lost', async () => {
  const own = new Agent({ keepAlive: true, maxSockets: 1 });
  for (const size of [MIB, 4 * MIB, MIB + 1]) {
    const bytes = randomBytes(size);
    assert.equal((await send(bytes, '/late', { agent: own })).digest, sha256(bytes), `${size} bytes`);
  }
  own.destroy();
});

test('many long bodies at once do not mix', async () => {
  const own = new Agent({ keepAlive: true, maxSockets: 6 });
  const bodies = Array.from({ length: 24 }, (_, n) => randomBytes(MIB + n * 100_003));
  const answers = await Promise.all(bodies.map((bytes, n) => send(bytes, n % 3 === 0 ? '/slow' : '/', { agent: own })));
  for (const [n, bytes] of bodies.entries()) assert.equal(answers[n]?.digest, sha256(bytes));
  own.destroy();
});

test('after a reader that stops early, the connection serves further requests', async () => {
  const bytes = randomBytes(5 * MIB);
  assert.equal((await send(bytes, '/first')).status, 400);
  assert.equal((await send(bytes)).digest, sha256(bytes));
  assert.equal((await send(bytes, '/', { headers: { Expect: '100-continue' } })).digest, sha256(bytes));
});

test('requests that follow a long body at once are answered in their order, whatever is read together', async () => {
  const bodies = [randomBytes(MIB), randomBytes(10), randomBytes(2 * MIB + 1), randomBytes(MIB)];
  const head = (size: number, more = '') => `PATCH / HTTP/1.1\r\nHost: x\r\n${more}Content-Length: ${size}\r\n\r\n`;
  const requests = bodies.flatMap((bytes) => [Buffer.from(head(bytes.length)), bytes]);
  const last = Buffer.from(head(0, 'Connection: close\r\n'));
  const { text } = await talk(port, Buffer.concat([...requests, last]));
  assert.deepEqual(statuses(text), [200, 200, 200, 200, 200]);
  const digests = text.match(/[0-9a-f]{64}/g);
  assert.deepEqual(digests, [...bodies, Buffer.alloc(0)].map(sha256));
});

test('what a slow client has sent is read before it sends more', async () => {
  const bytes = randomBytes(MIB + 10);
  const socket = connect(port, '127.0.0.1');
  socket.write(`PATCH /first HTTP/1.1\r\nHost: x\r\nContent-Length: ${bytes.length}\r\n\r\n`);
  await sleep(50);
  socket.write(bytes.subarray(0, 1000));
  const [answered] = (await once(socket, 'data')) as [Buffer];
  assert.match(answered.toString(), /^HTTP\/1\.1 400 /);
  assert.match(answered.toString(), new RegExp(sha256(bytes.subarray(0, 1000))));
  socket.destroy();
});

test('a client that disconnects fails the body', async () => {
  const before = failed.length;
  const socket = connect(port, '127.0.0.1');
  socket.write(`PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: ${4 * MIB}\r\n\r\n`);
  socket.write(randomBytes(2 * MIB), () => socket.destroy());
  for (let tries = 0; failed.length === before && tries < 500; tries++) await sleep(10);
  assert.equal(failed.length, before + 1);
  const bytes = randomBytes(MIB);
  assert.equal((await send(bytes)).digest, sha256(bytes), 'parsers of closed connections still copy other bodies');
  assert.equal((await send(bytes.subarray(0, 50_000))).digest, sha256(bytes.subarray(0, 50_000)));
});
