import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { open, readFile, rm } from 'node:fs/promises';
import { Agent, createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { statuses, talk } from '../../test/support/raw-http.ts';
import { temporaryDirectory } from '../../test/support/temporary.ts';
import { until } from '../../test/support/until.ts';
import { detachOf } from '../io/detachable-body.ts';
import { createRunningHash } from '../io/running-hash.ts';
import { digestOf } from '../oci/digest.ts';
import { signalOf } from './exchange.ts';
import { openBody } from './request-body.ts';

const MIB = 2 ** 20;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const directory = await temporaryDirectory();
const failures: unknown[] = [];
let files = 0;

/** Stores a body in a file, and answers with the digest of the file. `/late`: the reader begins late;
 *  `/read-only`: the file cannot be written. */
async function answer(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = join(directory.path, `${++files}`);
  const signal = signalOf(response);
  const body = openBody(incoming, response);
  if (incoming.url === '/late') await sleep(50);
  const hash = createRunningHash('sha256');
  const written = await open(path, 'wx');
  await using file = incoming.url === '/read-only' ? await open(path, 'r') : written;
  try {
    const bytes = await detachOf(body.batches)?.();
    const receive = hash.receiver();
    if (bytes === undefined || receive === undefined) throw new Error('this body cannot be detached');
    await receive(file, bytes, { syncSize: 4 * MIB, signal });
    const stored = await readFile(path);
    assert.ok(await hash.agrees(digestOf(stored, 'sha256')), 'the hash is that of the file');
    response.end(sha256(stored));
  } catch (error) {
    failures.push(error);
    response.writeHead(500).end();
  } finally {
    hash.close();
    await written.close();
    await rm(path);
  }
}

const server = createServer();
const take = (incoming: IncomingMessage, response: ServerResponse): void => void answer(incoming, response);
server.on('request', take).on('checkContinue', take).listen(0, '127.0.0.1');
await once(server, 'listening');
const { port } = server.address() as AddressInfo;
after(async () => {
  server.closeAllConnections();
  server.close();
  await directory[Symbol.asyncDispose]();
});

interface Sent {
  path?: string;
  agent?: Agent;
  headers?: Record<string, string>;
}

async function send(bytes: Buffer, { path = '/', ...options }: Sent = {}) {
  const asked = request({ port, path, method: 'PATCH', ...options });
  if (options.headers?.['Expect'] === '100-continue') asked.once('continue', () => asked.end(bytes)).flushHeaders();
  else asked.end(bytes);
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return {
    status: response.statusCode,
    connection: response.headers.connection,
    digest: Buffer.concat(await response.toArray()).toString(),
  };
}

test('long bodies arrive byte for byte, and the connection closes after the response', async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  for (const size of [MIB, MIB + 1, 3 * MIB + 7, 16 * MIB]) {
    const bytes = randomBytes(size);
    const { digest, connection } = await send(bytes, { agent });
    assert.equal(digest, sha256(bytes), `${size} bytes`);
    assert.equal(connection, 'close');
  }
  agent.destroy();
});

test('bytes that Node has read before the reader begins are not lost', async () => {
  for (const size of [MIB, 4 * MIB]) {
    const bytes = randomBytes(size);
    assert.equal((await send(bytes, { path: '/late' })).digest, sha256(bytes));
  }
});

test('a client that waits for 100 Continue gets it', async () => {
  const bytes = randomBytes(2 * MIB);
  const headers = { Expect: '100-continue', 'Content-Length': String(bytes.length) };
  assert.equal((await send(bytes, { headers })).digest, sha256(bytes));
});

test('many bodies at once, fast and slow, do not mix', async () => {
  const bodies = Array.from({ length: 24 }, (_, n) => randomBytes(MIB + n * 100_003));
  const answers = await Promise.all(bodies.map((bytes, n) => (n % 3 === 0 ? sendSlowly(bytes) : send(bytes))));
  for (const [n, bytes] of bodies.entries()) assert.equal(answers[n]?.digest, sha256(bytes));
});

async function sendSlowly(bytes: Buffer) {
  const asked = request({ port, path: '/', method: 'PATCH', headers: { 'Content-Length': String(bytes.length) } });
  for (let at = 0; at < bytes.length; at += 200_000) {
    asked.write(bytes.subarray(at, at + 200_000));
    await sleep(5);
  }
  asked.end();
  const [response] = (await once(asked, 'response')) as [IncomingMessage];
  return { digest: Buffer.concat(await response.toArray()).toString() };
}

test('short bodies, and bodies without a length, are left to Node', async () => {
  for (const [bytes, headers] of [
    [randomBytes(MIB - 1), {}],
    [randomBytes(2 * MIB), { 'Transfer-Encoding': 'chunked' }],
  ] as const) {
    const { status } = await send(bytes, { headers });
    assert.equal(status, 500);
    assert.match(String(failures.pop()), /cannot be detached/);
  }
});

test('bytes after the body are not stored, and not taken for a request', async () => {
  const bytes = randomBytes(MIB);
  const head = `PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: ${bytes.length}\r\n\r\n`;
  const before = files;
  const { text } = await talk(port, Buffer.concat([Buffer.from(head), bytes, Buffer.from(head)]));
  assert.ok(statuses(text).length <= 1, text);
  assert.equal(files, before + 1);
});

test('a client that disconnects fails the body, and the process goes on', async () => {
  const before = failures.length;
  const socket = connect(port, '127.0.0.1');
  socket.write(`PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: ${4 * MIB}\r\n\r\n`);
  socket.write(randomBytes(2 * MIB), () => socket.destroy());
  await until(() => failures.length > before, 'the body fails');
  assert.match(String(failures.pop()), /the client has disconnected/);
  const bytes = randomBytes(MIB);
  assert.equal((await send(bytes)).digest, sha256(bytes));
});

test('receiving ends when its signal aborts', async () => {
  const before = failures.length;
  const socket = connect(port, '127.0.0.1');
  const accepted = once(server, 'connection') as Promise<[{ destroy(): void }]>;
  socket.write(`PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: ${4 * MIB}\r\n\r\n`);
  socket.write(randomBytes(2 * MIB));
  const [connection] = await accepted;
  await sleep(100);
  connection.destroy(); // as the server does with an idle connection
  await until(() => failures.length > before, 'the body fails');
  assert.match(String(failures.pop()), /stopped|disconnected/);
  socket.destroy();
});

test('a client that is still sending gets to read that its bytes could not be written', async () => {
  const before = failures.length;
  const { status } = await send(randomBytes(24 * MIB), { path: '/read-only' });
  assert.equal(status, 500);
  assert.equal(failures.length, before + 1);
  assert.equal((failures.pop() as NodeJS.ErrnoException).code, 'EBADF');
});

test('a client whose bytes could not be written gets its answer at once, and is not cut off while it sends on', async () => {
  const before = failures.length;
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  socket.write(`PATCH /read-only HTTP/1.1\r\nHost: x\r\nContent-Length: ${200 * MIB}\r\n\r\n`);
  socket.write(randomBytes(2 * MIB));
  const [answered] = (await once(socket, 'data', { signal: AbortSignal.timeout(10_000) })) as [Buffer];
  assert.deepEqual(statuses(answered.toString()), [500]);
  assert.equal(failures.length, before + 1);
  assert.equal((failures.pop() as NodeJS.ErrnoException).code, 'EBADF');
  for (let sent = 0; sent < 16; sent++) {
    const error = await new Promise((written) => socket.write(randomBytes(MIB), written));
    assert.ok(!error, String(error));
  }
  socket.destroy();
});
