import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { openFront, type Front } from './front.ts';

/** A server that stands for a mihomo process. */
async function startBackend(serve: (socket: Socket) => void) {
  const server = createServer((socket) => serve(socket.on('error', () => undefined))).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    ports: { proxy: port, shared: port, controller: port },
    async [Symbol.asyncDispose]() {
      server.close();
      await once(server, 'close');
    },
  };
}

async function startFront() {
  const stop = new AbortController();
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  await once(probe.close(), 'close');
  const events: string[] = [];
  const front: Front = await openFront({
    listen: [{ entrance: 'proxy', host: '127.0.0.1', port }],
    events: {
      opened: () => void events.push('opened'),
      unanswered: () => void events.push('unanswered'),
      request: (socket) => void socket.end('for us'),
    },
    signal: stop.signal,
  });
  return {
    front,
    events,
    /** Sends text over a new connection. */
    async ask(text: string): Promise<string> {
      const socket = connect(port, '127.0.0.1', () => socket.write(text));
      let answer = '';
      for await (const chunk of socket) answer += String(chunk);
      return answer;
    },
    async [Symbol.asyncDispose]() {
      stop.abort();
      await front.closed;
    },
  };
}

test('new connections go to the mihomo in use, and open ones keep theirs to their end', async () => {
  const slow = (name: string) => (socket: Socket) =>
    void socket.once('data', () => {
      socket.write(`${name} begins, `.repeat(40));
      setTimeout(() => socket.end(`${name} ends`), 500);
    });
  await using former = await startBackend(slow('former'));
  await using next = await startBackend(slow('next'));
  await using clients = await startFront();
  const { front } = clients;
  const ask = (text: string) => clients.ask(text);
  front.use(former.ports);
  const running = ask('x');
  for (let tries = 0; front.links().length === 0 && tries < 200; tries++) await delay(10);
  assert.deepEqual(
    front.links().map(({ ports }) => ports),
    [former.ports],
  );
  front.use(next.ports);
  assert.match(await ask('x'), /next ends$/);
  assert.match(await running, /former ends$/);
});

test('while no mihomo runs, connections wait for one instead of failing', async () => {
  await using backend = await startBackend((socket) => void socket.once('data', () => socket.end('here'.repeat(100))));
  await using clients = await startFront();
  const waiting = [clients.ask('x'), clients.ask('y')];
  await delay(300);
  clients.front.use(backend.ports);
  for (const answer of await Promise.all(waiting)) assert.match(answer, /^here/);
});

test('a connection that mihomo refuses ends properly and is noticed, and a reset in the middle of an answer is passed on', async () => {
  await using refusing = await startBackend((socket) => void socket.once('data', () => socket.resetAndDestroy()));
  await using cutting = await startBackend(
    (socket) => void socket.once('data', () => socket.write(Buffer.alloc(100_000), () => setTimeout(() => socket.resetAndDestroy(), 200))),
  );
  await using clients = await startFront();
  clients.front.use(refusing.ports);
  assert.equal(await clients.ask('x'), '');
  assert.deepEqual(clients.events, ['opened', 'unanswered']);
  clients.front.use(cutting.ports);
  await assert.rejects(clients.ask('x'), { code: 'ECONNRESET' });
  assert.equal(clients.events.filter((event) => event === 'unanswered').length, 1);
});

test('a request to the port itself is answered by this program, and mihomo never sees it', async () => {
  await using clients = await startFront();
  assert.equal(await clients.ask('POST /kube-registry/downloads HTTP/1.1\r\n\r\n'), 'for us');
  assert.deepEqual(clients.events, []);
});
