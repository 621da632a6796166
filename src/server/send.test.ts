import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { get, type IncomingMessage } from 'node:http';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { captureLog } from '../../test/support/log.ts';
import { openSilently } from '../../test/support/raw-http.ts';
import { isOciError } from '../oci/error.ts';
import { listen } from './listen.ts';
import { sendBody, type SentBody } from './send.ts';

const CHUNK = 256 * 1024;
const { log } = await captureLog();

interface Sending {
  body: AsyncIterable<Uint8Array>;
  length?: number;
}

/** A server that sends one body to every client, and reports how each transfer ended. */
async function serve(
  make: () => Sending,
): Promise<{ url: string; port: number; sent: Promise<SentBody>; [Symbol.asyncDispose](): Promise<void> }> {
  const { promise: sent, resolve, reject } = Promise.withResolvers<SentBody>();
  sent.catch(() => undefined); // checked by the tests that need it
  const listener = await listen({
    address: { host: '127.0.0.1', port: 0 },
    log,
    handler: async (_request, response) => {
      const { body, length } = make();
      response.writeHead(200, length === undefined ? {} : { 'content-length': length });
      try {
        resolve(await sendBody(response, body, { length }));
      } catch (error) {
        response.destroy();
        reject(error);
      }
    },
  });
  return { url: listener.url, port: listener.address.port, sent, [Symbol.asyncDispose]: () => listener.close() };
}

/** Alternates two buffers, and wipes each as soon as that is allowed; chunk k is full of byte k. */
async function* alternating(chunks: number): AsyncGenerator<Uint8Array> {
  const buffers = [Buffer.alloc(CHUNK), Buffer.alloc(CHUNK)] as const;
  try {
    for (let index = 0; index < chunks; index++) {
      const buffer = buffers[index % 2 === 0 ? 0 : 1];
      buffer.fill(0xee);
      await new Promise(setImmediate);
      yield buffer.fill(index % 251);
    }
  } finally {
    for (const buffer of buffers) buffer.fill(0xdd);
  }
}

function expectedHash(chunks: number): string {
  const hash = createHash('sha256');
  for (let index = 0; index < chunks; index++) hash.update(Buffer.alloc(CHUNK, index % 251));
  return hash.digest('hex');
}

function ask(url: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    get(url, { agent: false }, resolve).once('error', reject);
  });
}

for (const known of [true, false]) {
  test(`a producer may alternate two buffers, also when the client is slow (${known ? 'known length' : 'chunked'})`, async () => {
    const chunks = 100;
    await using server = await serve(() => ({ body: alternating(chunks), ...(known ? { length: chunks * CHUNK } : {}) }));
    const response = await ask(server.url);
    const hash = createHash('sha256');
    let read = 0;
    for await (const part of response as AsyncIterable<Buffer>) {
      hash.update(part);
      if (read < 2 ** 21) await sleep(2);
      read += part.length;
    }
    assert.equal(response.headers['transfer-encoding'], known ? undefined : 'chunked');
    assert.equal(hash.digest('hex'), expectedHash(chunks));
    assert.deepEqual(await server.sent, { bytes: chunks * CHUNK, complete: true });
  });
}

test('a slow client holds no more than two chunks in memory', async () => {
  let asked = 0;
  const body = async function* () {
    for (let index = 0; index < 1_000; index++) {
      asked++;
      yield Buffer.alloc(CHUNK);
    }
  };
  await using server = await serve(() => ({ body: body(), length: 1_000 * CHUNK }));
  const socket = await openSilently(server.port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  let before = -1;
  while (before !== asked) {
    before = asked;
    await sleep(150);
  }
  const { port } = server;
  assert.ok(asked < 100, `${asked} chunks were asked for, the kernel's buffers included, on port ${port}`);
  socket.destroy();
  assert.equal((await server.sent).complete, false);
});

test('promise 1: the headers go out before the first chunk has arrived', async () => {
  const { promise: first, resolve } = Promise.withResolvers<void>();
  const body = async function* () {
    await first;
    yield Buffer.from('late');
  };
  await using server = await serve(() => ({ body: body(), length: 4 }));
  const response = await ask(server.url);
  assert.equal(response.statusCode, 200);
  resolve();
  assert.equal(String(Buffer.concat((await response.toArray()) as Buffer[])), 'late');
});

test('a body that fails, or that is shorter or longer than was said, never looks whole to the client', async () => {
  const bodies: [string, () => AsyncGenerator<Uint8Array>, number | undefined][] = [
    ['fails at once', () => failing(0), 1_000],
    ['fails in the middle', () => failing(3), 1_000_000],
    ['fails in the middle, chunked', () => failing(3), undefined],
    ['too short', () => alternating(3), 4 * CHUNK],
    ['empty', () => alternating(0), 1],
    ['too long', () => alternating(3), 3 * CHUNK - 1],
  ];
  for (const [what, make, length] of bodies) {
    await using server = await serve(() => ({ body: make(), ...(length === undefined ? {} : { length }) }));
    await assert.rejects(async () => (await ask(server.url)).toArray(), what);
    await assert.rejects(server.sent, (error) => what.startsWith('fails') || isOciError(error, 'SIZE_INVALID'), what);
  }
});

async function* failing(after: number): AsyncGenerator<Uint8Array> {
  for (let index = 0; index < after; index++) yield Buffer.alloc(1_000);
  await sleep(5);
  throw new Error('upstream cut');
}

test('empty chunks and empty bodies are sent correctly', async () => {
  const body = async function* () {
    for (const text of ['', 'a', '', '', 'bc', '']) yield Buffer.from(text);
  };
  for (const length of [3, undefined]) {
    await using server = await serve(() => ({ body: body(), ...(length === undefined ? {} : { length }) }));
    assert.equal(await (await fetch(server.url)).text(), 'abc');
  }
  for (const length of [0, undefined]) {
    await using server = await serve(() => ({ body: alternating(0), ...(length === undefined ? {} : { length }) }));
    assert.equal(await (await fetch(server.url)).text(), '');
    assert.deepEqual(await server.sent, { bytes: 0, complete: true });
  }
});

test('when the client leaves, the body is left too', async () => {
  const { promise: left, resolve } = Promise.withResolvers<void>();
  const body = async function* () {
    try {
      for (;;) {
        yield Buffer.alloc(CHUNK);
        await sleep(1);
      }
    } finally {
      resolve();
    }
  };
  await using server = await serve(() => ({ body: body(), length: 2 ** 40 }));
  const response = await ask(server.url);
  response.once('error', () => undefined);
  response.once('data', () => response.destroy());
  await left;
  assert.equal((await server.sent).complete, false);
});
