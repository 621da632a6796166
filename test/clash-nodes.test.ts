import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startClash, startSubscriptionServer, through, type ClashProgram, type SubscriptionServer } from './support/clash.ts';
import { startAirport, type Airport } from './support/mihomo.ts';
import { startRegistry } from './support/program.ts';
import { freePort } from './support/temporary.ts';
import { until } from './support/until.ts';

// Registry → sidecar → mihomo 1.19.32 → an airport (a provider's proxy server) → an upstream, at an
// address for each airport, by which the upstream recognizes a node. The health check's interval
// stays at its default of five minutes, so anything that happens sooner is done by this program.

const resources = new AsyncDisposableStack();
let subscriptions: SubscriptionServer;
let one: Airport;
let other: Airport;
let url: string;
/** How the upstream treats requests, by source address. */
const moods = new Map<string, 'refuses' | 'cuts' | 'redirects'>();
const blobs = new Map<string, Buffer>();
const ADDRESSES = { one: '127.0.0.2', other: '127.0.0.3' };

before(async () => {
  subscriptions = resources.use(await startSubscriptionServer());
  let port = 0;
  for (const address of Object.values(ADDRESSES)) {
    const server = createHttpServer((request, response) => {
      const mood = moods.get(address);
      if (mood === 'refuses') return void response.writeHead(403).end();
      if (mood === 'redirects') return void response.writeHead(302, { location: 'http://portal.test/login' }).end();
      const blob = request.url === '/v2/' ? Buffer.from('{}') : blobs.get(request.url?.split('/').pop() ?? '');
      if (blob === undefined) return void response.writeHead(404).end();
      const { length } = blob;
      response.writeHead(200, { 'content-length': length, 'content-type': 'application/octet-stream' });
      if (mood !== 'cuts' || length < 10_000) return void response.end(request.method === 'HEAD' ? undefined : blob);
      return void response.write(blob.subarray(0, 5000), () => setTimeout(() => response.destroy(), 50));
    }).listen(port, address);
    await once(server, 'listening');
    ({ port } = server.address() as AddressInfo);
    resources.defer(() => {
      server.close();
      server.closeAllConnections();
    });
  }
  url = `http://hub.test:${port}`;
  one = resources.use(await startAirport({ hosts: { 'hub.test': ADDRESSES.one }, name: 'one' }));
  other = resources.use(await startAirport({ hosts: { 'hub.test': ADDRESSES.other }, name: 'other' }));
});
after(() => resources.disposeAsync());

async function start(path: string, nodes: readonly object[], own: Record<string, unknown> = {}): Promise<ClashProgram> {
  subscriptions.answers.set(path, JSON.stringify({ proxies: nodes }));
  const clash = await startClash({
    subscriptions: [{ name: 'airport', url: subscriptions.url(path) }],
    healthCheck: { url: `${url}/v2/` },
    ...own,
  });
  await until(async () => (await clash.status()).config.proven, 'nothing goes through');
  return clash;
}

const pulling = (clash: ClashProgram) => startRegistry({ proxy: clash.proxy, upstreams: { hub: { url } } });

async function pull(registry: { url: string }, size = 5000): Promise<number> {
  const blob = randomBytes(size);
  const digest = `sha256:${createHash('sha256').update(blob).digest('hex')}`;
  blobs.set(digest, blob);
  const response = await fetch(`${registry.url}/v2/hub/library/thing/blobs/${digest}`);
  await response.arrayBuffer();
  return response.status;
}

const chosen = async (clash: ClashProgram): Promise<'one' | 'other'> => ((await clash.status()).chosen === 'one' ? 'one' : 'other');
const seconds = (since: number) => (performance.now() - since) / 1000;

/** Pulls until one works; within the time in which a node has to be left. */
async function pullsAgain(registry: { url: string }): Promise<number> {
  const since = performance.now();
  while ((await pull(registry).catch(() => 0)) !== 200) assert.ok(seconds(since) < 15, 'the node is not left');
  return seconds(since);
}

test('promise C4: a node that falls silent is left within 15 s, long before its next health check', async (t) => {
  await using clash = await start('/silent', [one.node, other.node]);
  await using registry = await pulling(clash);
  assert.equal(await pull(registry), 200);
  const silent = (await chosen(clash)) === 'one' ? one : other;
  process.kill(silent.process.pid, 'SIGSTOP');
  try {
    t.diagnostic(`a pull works ${(await pullsAgain(registry)).toFixed(1)} s later`);
  } finally {
    process.kill(silent.process.pid, 'SIGCONT');
  }
});

for (const mood of ['refuses', 'redirects'] as const) {
  test(`promise C4: a node whose address the registry ${mood} is left, and not used after a start`, async () => {
    {
      await using clash = await start(`/${mood}`, [one.node, other.node]);
      await using registry = await pulling(clash);
      assert.equal(await pull(registry), 200);
      const left = await chosen(clash);
      moods.set(ADDRESSES[left], mood);
      await pullsAgain(registry);
      await until(async () => (await chosen(clash)) !== left, 'the node is not left');
    }
    moods.clear();
    moods.set(ADDRESSES.one, mood);
    await using clash = await start(`/${mood}`, [one.node, other.node]);
    assert.equal((await clash.status()).chosen, 'other');
    moods.clear();
  });
}

test('promise C4: a sidecar that started while its only node was away takes the first request after the node is back, on both listeners', async () => {
  const shared = { ports: { shared: await freePort() }, users: [{ username: 'builds', password: 'word' }] };
  subscriptions.answers.set('/away', JSON.stringify({ proxies: [one.node] }));
  for (const awayMs of [0, 1500, 7000]) {
    await one.stop();
    await using clash = await startClash({
      subscriptions: [{ name: 'airport', url: subscriptions.url('/away') }],
      healthCheck: { url: `${url}/v2/` },
      ...shared,
    });
    await until(async () => (await clash.status()).nodes.length === 1, 'the subscription is not in use');
    await delay(awayMs);
    await one.start();
    for (const proxy of [clash.shared.replace('//', '//builds:word@'), clash.proxy]) {
      assert.equal((await through(proxy, `${url}/v2/`)).status, 200, `${awayMs} ms`);
    }
  }
});

test('promise C4: requests through the shared listener alone are enough for a node that the registry refuses to be left', async () => {
  const shared = { ports: { shared: await freePort() }, users: [{ username: 'builds', password: 'word' }] };
  await using clash = await start('/shared', [one.node, other.node], shared);
  const left = await chosen(clash);
  moods.set(ADDRESSES[left], 'refuses');
  const ask = () => through(clash.shared.replace('//', '//builds:word@'), `${url}/v2/`);
  // A connection through the node that is being left may be closed.
  const works = () =>
    ask()
      .then(({ status }) => status === 200)
      .catch(() => false);
  await until(works, 'the node is not left');
  moods.clear();
});

test("the user's own expected-status decides which nodes live", async () => {
  moods.set(ADDRESSES.one, 'refuses');
  const override = { 'proxy-groups': { override: [{ name: 'auto', 'expected-status': '403' }] } };
  await using clash = await start('/expected', [one.node, other.node], { override });
  await until(async () => (await clash.status()).chosen === 'one', 'the override does not count');
  moods.clear();
});

test('promise C4: a node that passes its health check and cuts large bodies is left after two downloads', async () => {
  await using clash = await start('/cuts', [one.node, other.node]);
  await using registry = await pulling(clash);
  assert.equal(await pull(registry), 200);
  const left = await chosen(clash);
  moods.set(ADDRESSES[left], 'cuts');
  for (let downloads = 0; downloads < 4; downloads++) await pull(registry, 500_000).catch(() => 0);
  await until(async () => (await chosen(clash)) !== left, 'the node is not left');
  assert.equal(await pull(registry, 500_000), 200);
  moods.clear();
});

test('a hundred silent nodes before a good one delay nothing', async (t) => {
  const silent = createServer((socket) => void socket.on('error', () => undefined).resume()).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as AddressInfo;
  const nodes = Array.from({ length: 100 }, (_, index) => ({ ...one.node, name: `silent ${index}`, port }));
  const since = performance.now();
  await using clash = await start('/hundred', [...nodes, one.node]);
  await using registry = await pulling(clash);
  assert.equal(await pull(registry), 200);
  t.diagnostic(`a pull works ${seconds(since).toFixed(1)} s after the start`);
  assert.equal((await clash.status()).chosen, 'one');
  await delay(100);
  assert.equal(await pull(registry), 200);
  silent.close();
});
