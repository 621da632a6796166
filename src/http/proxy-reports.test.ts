import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { OciError } from '../oci/error.ts';
import { withProxyReports } from './proxy-reports.ts';
import type { Transport } from './transport.ts';

/** A server that takes reports, as the sidecar does on the port of its proxy, or refuses them, as
 *  other proxies do. */
async function startReceiver(status: number) {
  const reports: string[] = [];
  const server = createServer((request, response) => {
    request.on('data', (chunk: Buffer) => reports.push(`${request.method} ${request.url} ${chunk.toString()}`));
    request.on('end', () => response.writeHead(status).end());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    reports,
    received: async (count: number) => {
      for (let tries = 0; reports.length < count && tries < 200; tries++) await new Promise((resolve) => void setTimeout(resolve, 20));
      assert.equal(reports.length, count);
    },
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

const answering = (statusCode: number, pull: () => Promise<Uint8Array | undefined>): Transport => ({
  proxied: true,
  request: () => Promise.resolve({ statusCode, headers: {}, body: { pull, close: () => Promise.resolve() }, abandon: () => undefined }),
});
const ask = (transport: Transport, signal = new AbortController().signal) =>
  transport.request({ origin: 'https://hub.test', path: '/v2/', method: 'GET', headers: {}, signal });
const report = (outcome: string) => `POST /kube-registry/downloads {"outcome":"${outcome}"}`;
const ends = () => Promise.resolve(undefined);

test('refusals, cut bodies and silent bodies are reported to the sidecar', async () => {
  await using receiver = await startReceiver(204);
  const by = (transport: Transport) => withProxyReports(transport, receiver.url);
  await ask(by(answering(200, ends)));
  await ask(by(answering(401, ends)));
  for (const status of [403, 429, 502]) await ask(by(answering(status, ends)));
  await receiver.received(3);
  const cut = await ask(by(answering(200, () => Promise.reject(new Error('other side closed')))));
  await assert.rejects(cut.body.pull());
  await receiver.received(4);
  const silence = new AbortController();
  const silent = await ask(by(answering(200, ends)), silence.signal);
  silence.abort(new OciError('UNAVAILABLE', 'hub.test fell silent', { origin: 'upstream' }));
  await silent.body.close(true);
  await receiver.received(5);
  const leaving = new AbortController();
  const left = await ask(by(answering(200, ends)), leaving.signal);
  leaving.abort(new Error('the client left'));
  await left.body.close(true);
  assert.deepEqual(receiver.reports, [report('refused'), report('refused'), report('refused'), report('cut'), report('silent')]);
});

test('a proxy that knows no reports gets one and no more, and a proxy elsewhere gets none', async () => {
  await using receiver = await startReceiver(400);
  const transport = withProxyReports(answering(503, ends), receiver.url);
  await ask(transport);
  await receiver.received(1);
  await new Promise((resolve) => void setTimeout(resolve, 200)); // the refusal arrives
  await ask(transport);
  const plain = answering(503, ends);
  for (const proxy of ['direct', 'http://proxy.corp.example:3128', 'socks5://127.0.0.1:1080'])
    assert.equal(withProxyReports(plain, proxy), plain);
  await new Promise((resolve) => void setTimeout(resolve, 200));
  assert.equal(receiver.reports.length, 1);
});
