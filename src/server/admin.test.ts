import assert from 'node:assert/strict';
import { test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { serveAdmin, type AdminOptions } from './admin.ts';
import { listen, type Listener } from './listen.ts';

const { log } = await captureLog();

function start(options: Partial<AdminOptions> = {}): Promise<Listener> {
  const handler = serveAdmin({ ready: () => true, metrics: () => Promise.resolve('x 1\n'), ...options });
  return listen({ address: { host: '127.0.0.1', port: 0 }, handler, log });
}

test('promise 11: /livez always succeeds, and /readyz depends on the process alone', async () => {
  let ready = false;
  await using listener = await start({ ready: () => ready });
  const statusOf = async (path: string, method = 'GET') => (await fetch(listener.url + path, { method })).status;
  assert.deepEqual([await statusOf('/livez'), await statusOf('/readyz'), await statusOf('/readyz', 'HEAD')], [200, 503, 503]);
  ready = true;
  assert.deepEqual([await statusOf('/livez?verbose'), await statusOf('/readyz'), await statusOf('/readyz', 'HEAD')], [200, 200, 200]);
});

test('/metrics is what Prometheus reads', async () => {
  const metrics = await createMetrics();
  metrics.counter('things_total', 'Things.', ['kind'])({ kind: 'a' }, 3);
  await using listener = await start({ metrics: () => metrics.render() });
  const response = await fetch(`${listener.url}/metrics`);
  assert.equal(response.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
  assert.match(await response.text(), /^kube_registry_things_total\{kind="a"\} 3$/m);
});

test('the status is available as a page and as JSON, and its values are escaped', async () => {
  const status = {
    title: 'registry <b>',
    storage: 's3 & co',
    upstreams: [
      { name: 'dockerhub', remaining: 93 },
      { name: '<script>alert(1)</script>', last: null },
    ],
    nested: { list: ['a', 'b'], none: [], on: true },
  };
  await using listener = await start({ status: () => Promise.resolve(status) });
  const page = await fetch(listener.url);
  assert.equal(page.headers.get('content-type'), 'text/html; charset=utf-8');
  assert.match(page.headers.get('content-security-policy') ?? '', /default-src 'none'/);
  const html = await page.text();
  assert.match(html, /<td>dockerhub<\/td><td>93<\/td>/);
  assert.match(html, /s3 &#38; co/);
  assert.doesNotMatch(html, /<script|<b>/);
  assert.deepEqual(await (await fetch(`${listener.url}/status`)).json(), status);
});

test('anything else is 404, and other methods are 405', async () => {
  await using listener = await start();
  assert.equal((await fetch(`${listener.url}/v2/`)).status, 404);
  const post = await fetch(`${listener.url}/livez`, { method: 'POST', body: 'x' });
  assert.deepEqual([post.status, post.headers.get('allow')], [405, 'GET, HEAD']);
});

test('metrics that fail are a 500, and the process lives', async () => {
  await using listener = await start({ metrics: () => Promise.reject(new Error('no')) });
  assert.equal((await fetch(`${listener.url}/metrics`)).status, 500);
  assert.equal((await fetch(`${listener.url}/livez`)).status, 200);
});
