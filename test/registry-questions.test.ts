import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { test } from 'node:test';
import { makeImage } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { until } from './support/until.ts';

/** More than the questions that may wait for an upstream at once. */
const TAGS = 1000;
/** Less than the 20 s after which a question without an answer ends. */
const LIMIT_MS = 15_000;

test('questions whose clients have left are cancelled: others are answered at once, also by an upstream that was silent', async () => {
  await using upstream = await startScriptedUpstream();
  upstream.add('acme/known', '1', makeImage({ architectures: ['amd64'], seed: 'known' }));
  upstream.add('acme/new', '1', makeImage({ architectures: ['amd64'], seed: 'new' }));
  await using registry = await startRegistry({ cache: { tagTtl: '1s' }, upstreams: { acme: { url: upstream.url } } });
  const get = (path: string) => fetch(`${registry.url}/v2/acme/${path}`, { signal: AbortSignal.timeout(LIMIT_MS) });
  assert.equal((await get('acme/known/manifests/1')).status, 200);

  upstream.behave = ({ path }) => ({ silent: path.includes('/acme/flood/') });
  const clients = Array.from({ length: TAGS }, (_, n) => {
    const client = connect(Number(new URL(registry.url).port), '127.0.0.1');
    client.write(`GET /v2/acme/acme/flood/manifests/t${n} HTTP/1.1\r\nHost: x\r\n\r\n`);
    return client;
  });
  await until(() => upstream.requests.filter(({ path }) => path.includes('/acme/flood/')).length >= 128, 'the questions take all places');
  await Promise.all(clients.map((client) => once(client.destroy(), 'close')));

  assert.equal((await get('acme/new/manifests/1')).status, 200);
  const known = await get('acme/known/manifests/1');
  assert.equal(known.status, 200);
  await until(async () => (await get('acme/known/manifests/1')).headers.get('warning') === null, 'the known tag is confirmed', LIMIT_MS);
});
