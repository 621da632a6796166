import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { Agent, get, type IncomingMessage } from 'node:http';
import { connect, createServer } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { captureLog } from '../../test/support/log.ts';
import { openSilently, statuses, talk } from '../../test/support/raw-http.ts';
import { freePort } from '../../test/support/temporary.ts';
import { isOciError } from '../oci/error.ts';
import { offerSockets, requestSockets } from './handover.ts';
import { listen, type Listener, type ListenLimits, type RequestHandler } from './listen.ts';

const LOOPBACK = { host: '127.0.0.1', port: 0 };
const { log } = await captureLog();
const hello: RequestHandler = (request, response) => {
  response.end(`hello ${request.url}`);
};
const start = (handler: RequestHandler = hello, limits: Partial<ListenLimits> = {}): Promise<Listener> =>
  listen({ address: LOOPBACK, handler, log, limits });

test('promise A2: a TLS handshake on a plain port is answered in plain HTTP, as clients that try HTTPS first expect', async () => {
  await using listener = await start();
  const { port } = listener.address;
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false });
  const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException];
  assert.match(String(error.code), /SSL/);

  const clientHello = Buffer.from('16030100c8010000c40303', 'hex');
  const { text } = await talk(port, clientHello);
  assert.match(text, /^HTTP\/1\.1 400 Bad Request\r\n/);
  assert.match(text, /Connection: close\r\n/);
  assert.match(text, /plain HTTP/);
});

test('bytes that are not HTTP get a single 4xx, and the connection is closed', async () => {
  await using listener = await start();
  const { port } = listener.address;
  const line = 'GET / HTTP/1.1\r\nHost: x\r\n';
  const cases: [string, string, number][] = [
    ['garbage', 'SSH-2.0-OpenSSH_9.2\r\n\r\n', 400],
    ['a NUL in the target', 'GET /v2/\0 HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['no Host', 'GET / HTTP/1.1\r\n\r\n', 400],
    ['a header with a NUL', `${line}X: a\0b\r\n\r\n`, 400],
    ['two lengths', `${line}Content-Length: 1\r\nContent-Length: 2\r\n\r\n`, 400],
    ['a length and chunks', `${line}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400],
    ['a negative length', `${line}Content-Length: -1\r\n\r\n`, 400],
    ['large headers', `${line}X: ${'a'.repeat(17_000)}\r\n\r\n`, 431],
    ['many headers', `${line}${'X: a\r\n'.repeat(4_000)}\r\n`, 431],
    ['a long target', `GET /${'a'.repeat(9_000)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`, 414],
    ['a target above the limit of headers', `GET /${'a'.repeat(40_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 431],
  ];
  for (const [what, bytes, status] of cases) {
    const { text } = await talk(port, bytes);
    const answers = statuses(text);
    assert.equal(answers.at(-1), status, `${what}: ${text.slice(0, 200)}`);
    assert.ok(!answers.includes(200), what);
  }
  assert.equal((await fetch(`${listener.url}/still`)).status, 200);
});

test('a client that sends its headers slowly, or nothing at all, is let go', async () => {
  await using listener = await start(hello, { headers: 300 });
  const [slow, silent] = await Promise.all([talk(listener.address.port, 'GET / HTTP/1.1\r\nHost:'), talk(listener.address.port, '')]);
  assert.deepEqual(statuses(slow.text), [408]);
  assert.ok(slow.took < 5_000 && silent.took < 5_000);
});

test('a client that reads no byte of its response is disconnected, but not one that reads slowly', async () => {
  const big = Buffer.alloc(64 * 2 ** 20);
  let cut = 0;
  const handler: RequestHandler = (_request, response) => {
    response.once('close', () => {
      if (!response.writableFinished) cut++;
    });
    response.end(big);
  };
  await using listener = await start(handler, { idle: 1500 });
  const slow = await openSilently(listener.address.port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const stuck = await openSilently(listener.address.port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  // Node checks twice before it takes a connection for idle.
  for (let turn = 0; turn < 100 && cut === 0; turn++) {
    slow.resume();
    await sleep(1);
    slow.pause();
    await sleep(150);
  }
  assert.equal(cut, 1, 'only the request that hangs');
  slow.destroy();
  stuck.destroy();
});

test('pipelined requests are answered in their order', async () => {
  const handler: RequestHandler = async (request, response) => {
    await sleep(request.url === '/0' ? 50 : 0);
    response.end(`<${request.url}>`);
  };
  await using listener = await start(handler);
  const requests = Array.from(
    { length: 20 },
    (_, index) => `GET /${index} HTTP/1.1\r\nHost: x\r\n${index === 19 ? 'Connection: close\r\n' : ''}\r\n`,
  );
  const { text } = await talk(listener.address.port, requests.join(''));
  assert.deepEqual(
    [...text.matchAll(/<\/(\d+)>/g)].map(([, index]) => Number(index)),
    requests.map((_, index) => index),
  );
});

test('of the requests that a client has sent at once, one is worked on at a time, and none after the client has left', async () => {
  const begun: (string | undefined)[] = [];
  const { promise: second, resolve: secondBegan } = Promise.withResolvers<void>();
  const { promise: gone, resolve } = Promise.withResolvers<void>();
  const handler: RequestHandler = (request, response) => {
    begun.push(request.url);
    if (request.url === '/0') {
      response.end();
      return;
    }
    response.once('close', resolve);
    secondBegan();
  };
  await using listener = await start(handler);
  const requests = Array.from({ length: 500 }, (_, index) => `GET /${index} HTTP/1.1\r\nHost: x\r\n\r\n`).join('');
  const socket = await openSilently(listener.address.port, requests);
  await second;
  socket.destroy();
  await gone;
  await fetch(`${listener.url}/0`);
  assert.deepEqual(begun, ['/0', '/1', '/0']);
});

test('a client that sends thousands of requests at once is disconnected', async () => {
  await using listener = await start(() => undefined);
  const { text } = await talk(listener.address.port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(3_000));
  assert.equal(text, '');
});

test('a client that closes its sending half is treated as disconnected', async () => {
  const { promise: gone, resolve } = Promise.withResolvers<boolean>();
  const handler: RequestHandler = (_request, response) => {
    response.once('close', () => resolve(!response.writableFinished));
  };
  await using listener = await start(handler);
  const { text } = await talk(listener.address.port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', { half: true });
  assert.equal(text, '');
  assert.equal(await gone, true);
});

test('garbage behind a request never gets into the body that is being sent', async () => {
  const handler: RequestHandler = (_request, response) => {
    response.writeHead(200, { 'content-length': 1_000 });
    response.write('a'.repeat(500));
  };
  await using listener = await start(handler);
  const { text } = await talk(listener.address.port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03\x01 garbage\r\n\r\n');
  assert.ok(statuses(text).length <= 1, text);
  assert.match(text, /(?:^|\r\n\r\n)a*$/);
});

test('a handler that throws causes a 500 and a log line, and the next request is served', async () => {
  const captured = await captureLog();
  const handler: RequestHandler = async (request, response) => {
    if (request.url === '/now') throw new Error('boom');
    await sleep(1);
    if (request.url === '/later') throw new Error('boom');
    if (request.url === '/middle') {
      response.writeHead(200, { 'content-length': 10 }).write('abc');
      throw new Error('boom');
    }
    response.end();
  };
  const sync: RequestHandler = (request, response) => {
    if (request.url === '/sync') throw new Error('boom');
    return handler(request, response);
  };
  await using listener = await listen({ address: LOOPBACK, handler: sync, log: captured.log });
  for (const path of ['/now', '/later', '/sync']) assert.equal((await fetch(listener.url + path)).status, 500, path);
  await assert.rejects(async () => (await fetch(`${listener.url}/middle`)).text());
  assert.equal((await fetch(`${listener.url}/fine`)).status, 200);
  const failures = captured.entries().filter((entry) => entry['level'] === 'error');
  assert.equal(failures.length, 4);
  assert.match(JSON.stringify(failures[0]), /boom.*stack/);
});

test('more ports answer with the same handler', async () => {
  const extra = await freePort();
  await using listener = await listen({ address: LOOPBACK, extraPorts: [extra], handler: hello, log });
  for (const port of [listener.address.port, extra]) {
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/x`)).text(), 'hello /x');
  }
});

test('the error about a port in use says what to do', async () => {
  await using listener = await start();
  await assert.rejects(
    listen({ address: listener.address, handler: hello, log }),
    (error) => isOciError(error, 'UNAVAILABLE') && /cannot listen on 127\.0\.0\.1:\d+: the port is in use/.test(error.message),
  );
});

test('draining completes running responses, closes idle connections and accepts no new ones', async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const handler: RequestHandler = async (request, response) => {
    response.writeHead(200, { 'content-length': 4 });
    if (request.url === '/slow') {
      response.write('ab');
      await released;
      response.end('cd');
    } else response.end('fast');
  };
  await using listener = await start(handler);
  const { port } = listener.address;
  const agent = new Agent({ keepAlive: true });
  const idle = connect(port, '127.0.0.1');
  idle.write('GET /fast HTTP/1.1\r\nHost: x\r\n\r\n');
  idle.resume();
  await sleep(50);
  const [slow] = (await once(get({ host: '127.0.0.1', port, path: '/slow', agent }), 'response')) as [IncomingMessage];

  const idleClosed = once(idle, 'close');
  const drained = listener.drain(10_000);
  await idleClosed;
  await assert.rejects(async () => {
    for (let turn = 0; turn < 100; turn++) await fetch(`${listener.url}/fast`).then(() => sleep(20));
  });
  release();
  assert.equal(Buffer.concat((await slow.toArray()) as Buffer[]).toString(), 'abcd');
  await drained;
  agent.destroy();
});

test('requests that a draining connection still brings are answered with Connection: close', async () => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const handler: RequestHandler = async (_request, response) => {
    await released;
    response.end('x');
  };
  await using listener = await start(handler);
  const answer = talk(listener.address.port, 'GET /1 HTTP/1.1\r\nHost: x\r\n\r\n');
  await sleep(50);
  const drained = listener.drain(10_000);
  await sleep(50);
  release();
  assert.deepEqual(statuses((await answer).text), [200]);
  await drained;
});

test('draining ends by force after its grace', async () => {
  await using listener = await start(() => undefined);
  const answer = talk(listener.address.port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await sleep(50);
  const started = performance.now();
  await listener.drain(200);
  const took = performance.now() - started;
  assert.ok(took >= 190 && took < 5_000, `${took} ms`);
  assert.equal((await answer).text, '');
});

test('promise A1: a successor is handed the socket, and the predecessor drains under load without a failed request', async () => {
  const port = await freePort();
  const handover = { name: `test-${port}`, secret: randomBytes(32) };
  const address = { host: '127.0.0.1', port };
  const older = await listen({ address, handler: hello, log });
  const offer = offerSockets(handover, () => older.sockets(), log);
  await assert.rejects(listen({ address, handler: hello, log }), /the port is in use/);
  const sockets = await until(() => requestSockets(handover, [`127.0.0.1:${port}`, '127.0.0.1:1']));
  assert.deepEqual([...sockets.keys()], [`127.0.0.1:${port}`]);
  await using _newer = await listen({ address, handler: hello, log, sockets });
  let served = 0;
  const stop = new AbortController();
  const client = async () => {
    const agent = new Agent({ keepAlive: false });
    while (!stop.signal.aborted) {
      await new Promise<void>((resolve, reject) => {
        get({ host: '127.0.0.1', port, path: '/x', agent }, (response) => response.resume().once('end', resolve)).once('error', reject);
      });
      served++;
      await sleep(5);
    }
  };
  const clients = Array.from({ length: 4 }, client);
  await sleep(300);
  offer.close();
  await older.drain(5_000);
  await sleep(300);
  stop.abort();
  await Promise.all(clients);
  assert.ok(served > 20, `${served} served`);
});

test('sockets are neither handed to nor accepted from a process without the secret', async () => {
  const port = await freePort();
  const handover = { name: `test-${port}`, secret: randomBytes(32) };
  await using listener = await listen({ address: { host: '127.0.0.1', port }, handler: hello, log });
  assert.equal(await requestSockets(handover, []), undefined, 'no process offers sockets');
  const offer = offerSockets(handover, () => listener.sockets(), log);
  await until(() => requestSockets(handover, []));
  const wrong = { ...handover, secret: randomBytes(32) };
  await assert.rejects(requestSockets(wrong, [`127.0.0.1:${port}`]));
  const silent = connect(`\0${handover.name}`);
  const garbage = connect(`\0${handover.name}`);
  garbage.write(`${'x'.repeat(10_000)}\n`);
  for (const socket of [silent, garbage]) {
    socket.on('error', () => undefined);
    socket.resume();
    await once(socket, 'close');
  }
  assert.equal((await requestSockets(handover, [`127.0.0.1:${port}`]))?.size, 1, 'the right user still gets it');
  offer.close();
  // Another process under this name.
  const stranger = createServer((socket) => void socket.end('{"nonce":"1"}\n{"proof":"2"}\n{}\n')).listen(`\0${handover.name}`);
  await once(stranger, 'listening');
  await assert.rejects(requestSockets(handover, []), /does not know the secret/);
  stranger.close();
});

/** Calls `get` until it returns a value. */
async function until<T>(get: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < 100; tries++) {
    const value = await get();
    if (value !== undefined) return value;
    await sleep(50);
  }
  return assert.fail('nothing came');
}
