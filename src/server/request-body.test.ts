import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, request, type ClientRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import { openBody } from './request-body.ts';

const MIB = 2 ** 20;
const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
after(() => {
  server.closeAllConnections();
  server.close();
});

/** Begins a request with a body. */
async function begin(): Promise<{ client: ClientRequest; incoming: IncomingMessage; response: ServerResponse }> {
  const client = request({ port: (server.address() as AddressInfo).port, method: 'PATCH' });
  client.on('error', () => undefined); // a test may cut the connection
  client.flushHeaders();
  const [incoming, response] = (await once(server, 'request')) as [IncomingMessage, ServerResponse];
  return { client, incoming, response };
}

test('a body is read in few batches, byte for byte, also by a reader that is slower than the client', async () => {
  const bytes = randomBytes(8 * MIB + 5);
  const { client, incoming, response } = await begin();
  client.end(bytes);
  let batches = 0;
  const read: Uint8Array[] = [];
  for await (const batch of openBody(incoming, response).batches) {
    if (batches++ % 4 === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    read.push(...batch);
  }
  assert.ok(bytes.equals(Buffer.concat(read)));
  assert.ok(batches < 50, `${batches} batches`);
  response.end();
});

test('what a slow client has sent is read before it sends more', async () => {
  const { client, incoming, response } = await begin();
  client.write('first');
  const batches = openBody(incoming, response).batches[Symbol.asyncIterator]();
  const { value } = (await batches.next()) as { value: Uint8Array[] };
  assert.equal(Buffer.concat(value).toString(), 'first');
  client.end('second');
  const second = (await batches.next()) as { value: Uint8Array[] };
  assert.equal(Buffer.concat(second.value).toString(), 'second');
  assert.equal((await batches.next()).done, true);
  response.end();
});

test('a client that disconnects fails the body', async () => {
  const { client, incoming, response } = await begin();
  client.write('half');
  setTimeout(() => client.destroy(), 10);
  await assert.rejects(Array.fromAsync(openBody(incoming, response).batches));
});

test('after a reader that stops early, the client still reads the answer on the same connection', async () => {
  const { client, incoming, response } = await begin();
  client.end(randomBytes(4 * MIB));
  const body = openBody(incoming, response);
  for await (const batch of body.batches) {
    assert.ok(batch.length > 0);
    break;
  }
  body.drain();
  response.writeHead(400).end();
  const [answer] = (await once(client, 'response')) as [IncomingMessage];
  assert.equal(answer.statusCode, 400);
});
