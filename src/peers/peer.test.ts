import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createTcpServer, type AddressInfo } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { captureLog } from '../../test/support/log.ts';
import { digestOf } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import { parseRepository } from '../oci/reference.ts';
import { listen } from '../server/listen.ts';
import { serveRegistry } from '../server/serve-registry.ts';
import { noRegistryMetrics } from '../telemetry/registry-metrics.ts';
import { createTransport } from '../http/undici-transport.ts';
import { createMemory } from '../testing/memory-registry.ts';
import { createPeer } from './peer.ts';
import { testRegistry } from '../testing/registry-suite.ts';
import { addSampleContent } from '../testing/sample-content.ts';

const transport = createTransport({ proxy: 'direct', connectTimeout: 800 });
const repository = parseRepository('hub/library/sample');
const digest = digestOf(Buffer.from('x'));

function connect(url: string) {
  const changes: boolean[] = [];
  const peer = createPeer({
    url,
    transport,
    pingTransport: createTransport({ proxy: 'direct' }),
    changed: (alive) => changes.push(alive),
    metrics: noRegistryMetrics,
  });
  return { ...peer, changes };
}

testRegistry('another replica', async (content) => {
  const memory = createMemory();
  addSampleContent(memory, repository, content);
  const { log } = await captureLog();
  const handler = serveRegistry(memory.registry, { log, nameOf: (first) => first, upstreamOf: () => undefined });
  const listener = await listen({ address: { host: '127.0.0.1', port: 0 }, handler, log });
  return { registry: connect(listener.url).registry, repository, [Symbol.asyncDispose]: () => listener.close() };
});

/** A replica that answers requests with `answer`, and answers pings while `pings` is true. */
async function startReplica(answer: RequestListener) {
  const state = { pings: true, url: '', hops: [] as unknown[] };
  const server = createServer((request, response) => {
    if (request.url !== '/v2/') {
      state.hops.push(request.headers['x-kube-registry-hop']);
      answer(request, response);
    } else if (state.pings) response.end('{}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return Object.assign(state, {
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  });
}

const fails = (promise: Promise<unknown>) => assert.rejects(promise, (error) => isOciError(error, 'UNAVAILABLE'));

test('requests wait for a slow but live replica, and carry a header that keeps it from asking other replicas', async () => {
  await using replica = await startReplica(
    (_, response) => void setTimeout(() => response.writeHead(200, { 'content-length': 1 }).end('x'), 2000),
  );
  const peer = connect(replica.url);
  assert.equal((await peer.registry.stat(repository, digest, { signal: AbortSignal.timeout(20_000) })).size, 1);
  assert.deepEqual(replica.hops, ['1']);
  assert.deepEqual(peer.changes, []);
});

test('a hung replica is abandoned, before its headers and in the middle of a body, and used again once it answers', async () => {
  await using replica = await startReplica((request, response) => {
    if (request.method === 'GET') response.writeHead(200, { 'content-length': 10 }).write('12345');
  });
  const peer = connect(replica.url);
  const { signal } = new AbortController();
  const { body } = await peer.registry.blob(repository, digest, { signal });
  const chunks: Uint8Array[] = [];
  const reading = (async () => {
    for await (const chunk of body) chunks.push(Uint8Array.from(chunk));
  })();
  await delay(1500);
  assert.ok(peer.liveness.alive(), 'silent, but it answers a probe');
  replica.pings = false;
  const started = performance.now();
  await Promise.all([fails(reading), fails(peer.registry.stat(repository, digest, { signal }))]);
  assert.ok(performance.now() - started < 5000, 'long before its time limit for headers');
  assert.equal(Buffer.concat(chunks).toString(), '12345');
  assert.equal(peer.liveness.alive(), false);
  replica.pings = true;
  await peer.liveness.check();
  assert.deepEqual(peer.changes, [false, true]);
});

test('a replica that is down, or that never answers, is known to be down afterwards', async () => {
  const mute = createTcpServer(() => undefined).listen(0, '127.0.0.1');
  await once(mute, 'listening');
  const { port } = mute.address() as AddressInfo;
  for (const url of ['http://127.0.0.1:1', `http://127.0.0.1:${port}`]) {
    const peer = connect(url);
    await fails(peer.registry.stat(repository, digest, { signal: AbortSignal.timeout(20_000) }));
    await peer.liveness.check();
    assert.equal(peer.liveness.alive(), false, url);
  }
  mute.close();
});

test('a caller that leaves does not affect other callers', async () => {
  await using replica = await startReplica(() => undefined);
  const peer = connect(replica.url);
  const leaving = new AbortController();
  const asking = peer.registry.stat(repository, digest, { signal: leaving.signal });
  leaving.abort(new Error('left'));
  await assert.rejects(asking, /left/);
  await delay(1000);
  assert.deepEqual(peer.changes, []);
});
