import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import {
  startClash,
  startSubscriptionServer,
  SUBSCRIPTION_KEY,
  through,
  type ClashProgram,
  type SubscriptionServer,
} from './support/clash.ts';
import { startDistribution, type Distribution } from './support/distribution.ts';
import { makeImage, pushImage } from './support/image.ts';
import { startAirport, type Airport } from './support/mihomo.ts';
import { accepts } from './support/process.ts';
import { startProgram, startRegistry, type ServingProgram } from './support/program.ts';
import { errorCode, read } from './support/reading.ts';
import { until } from './support/until.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { startVersitygw } from './support/versitygw.ts';

// Registry → mihomo → airport → Distribution, whose name only the airports can resolve.

const MiB = 1024 * 1024;
const PASSWORD = 'shared-password-1';
const image = makeImage({ architectures: ['amd64'], layers: [4 * MiB], seed: 'clash' });
const [layer] = image.platforms[0]?.layers ?? [];

const resources = new AsyncDisposableStack();
let subscriptions: SubscriptionServer;
let hub: Distribution;
let hubUrl: string;
let near: Airport;
let far: Airport;

before(async () => {
  subscriptions = resources.use(await startSubscriptionServer());
  hub = resources.use(await startDistribution());
  await pushImage(hub.url, 'library/thing', '1', image);
  const hosts = { 'hub.test': '127.0.0.1' };
  near = resources.use(await startAirport({ hosts, name: 'near' }));
  far = resources.use(await startAirport({ hosts, name: 'far' }));
  hubUrl = hub.url.replace('127.0.0.1', 'hub.test');
  const group = {
    name: 'Proxy',
    type: 'url-test',
    proxies: ['near', 'far', 'DIRECT'].slice(0, 2),
    url: 'http://elsewhere.test/',
    interval: 600,
  };
  const rules = ['GEOSITE,google,Proxy', 'GEOIP,CN,DIRECT,no-resolve', 'DOMAIN-SUFFIX,private.example,DIRECT', 'MATCH,Proxy'];
  subscriptions.answers.set('/nodes', JSON.stringify({ proxies: [near.node, far.node] }));
  subscriptions.answers.set('/near', JSON.stringify({ proxies: [near.node] }));
  subscriptions.answers.set('/uris', Buffer.from(`${uri(near)}\n${uri(far)}\n`).toString('base64'));
  const listed = { type: 'inline', payload: [near.node, far.node] };
  const select = { name: 'Proxy', type: 'select', use: ['listed'] };
  subscriptions.answers.set(
    '/provider',
    JSON.stringify({ 'proxy-providers': { listed }, 'proxy-groups': [select], rules: ['MATCH,Proxy'] }),
  );
  subscriptions.answers.set('/full', JSON.stringify({ proxies: [near.node, far.node], 'proxy-groups': [group], rules }));
});
after(() => resources.disposeAsync());

function uri({ node }: Airport): string {
  return `ss://${Buffer.from(`${node.cipher}:${node.password}`).toString('base64url')}@${node.server}:${node.port}#${node.name}`;
}

/** A configuration of mode nodes, with a subscription that `path` serves. */
const over = (path: string, more: Record<string, unknown> = {}) => ({
  subscriptions: [{ name: 'airport', url: subscriptions.url(path) }],
  healthCheck: { url: `${hubUrl}/v2/`, interval: '1s' },
  ...more,
});

const registryThrough = async ({ proxy }: ClashProgram, env: Record<string, string> = {}): Promise<ServingProgram> =>
  startRegistry(
    {
      proxy,
      upstreams: { hub: { url: hubUrl }, near: { url: hub.url.replace('127.0.0.1', 'localhost'), proxy: 'direct' } },
      cache: { tagTtl: '0ms' },
    },
    { env },
  );

const get = async (proxy: string, url: string): Promise<number> => (await through(proxy, url)).status;
const downloaded = async () => (await near.traffic()).downloadTotal + (await far.traffic()).downloadTotal;
const proven = (clash: ClashProgram) => until(async () => (await clash.status()).config.proven, 'nothing goes through');

/** Every output of a program: its log, its metrics, its status, its arguments and those of
 *  mihomo. */
async function wordsOf(clash: ClashProgram): Promise<string> {
  const words = [clash.output(), await clash.metrics(), JSON.stringify(await clash.status()), await (await fetch(clash.admin)).text()];
  for (const pid of [clash.pid, await mihomoOf(clash)]) words.push(await readFile(`/proc/${pid}/cmdline`, 'utf8'));
  return words.join('\n');
}

/** The mihomo process in use: the one that was started last. */
async function mihomoOf({ pid }: ClashProgram): Promise<number> {
  return Number((await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ').at(-1));
}

function assertNoSecrets(words: string): void {
  assert.ok(words.length > 500, 'there is something to search in');
  const secrets = [SUBSCRIPTION_KEY, PASSWORD, near.node.password, far.node.password, uri(near), subscriptions.url('/').slice(0, 22)];
  for (const secret of secrets)
    assert.ok(!words.includes(secret), `${secret} is in: ${words.split('\n').find((line) => line.includes(secret))}`);
}

/** Counts the queries to a name server that answers none. */
async function startDeafResolver(): Promise<{ address: string; asked: string[] } & AsyncDisposable> {
  const socket = createSocket('udp4');
  const asked: string[] = [];
  socket.on('message', (message) => asked.push(message.toString('latin1')));
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return {
    address: `127.0.0.1:${socket.address().port}`,
    asked,
    async [Symbol.asyncDispose]() {
      socket.close();
      await once(socket, 'close');
    },
  };
}

/** Makes Node report each name that it looks up. */
const TELL_LOOKUPS = `--import=data:text/javascript,${encodeURIComponent(
  "import dns from 'node:dns'; const { lookup } = dns; dns.lookup = (name, ...more) => (process.stderr.write('looked up ' + name + '\\n'), lookup(name, ...more));",
)}`;

const MODES: [string, () => Promise<Record<string, unknown>>][] = [
  ['nodes of Clash YAML', () => Promise.resolve(over('/nodes'))],
  ['nodes of a list of URIs', () => Promise.resolve(over('/uris'))],
  ['full', () => Promise.resolve(over('/full', { mode: 'full' }))],
  ['full, of a list of URIs', () => Promise.resolve(over('/uris', { mode: 'full' }))],
  ['full, of nodes that only a provider has', () => Promise.resolve(over('/provider', { mode: 'full' }))],
  [
    'custom',
    async () => {
      const { path } = resources.use(await temporaryDirectory());
      const file = join(path, 'custom.yaml');
      await writeFile(file, JSON.stringify({ 'mixed-port': 1, proxies: [near.node], rules: ['MATCH,near'] }));
      return over('/none', { mode: 'custom', configFile: file, subscriptions: [] });
    },
  ],
];

for (const [mode, configuration] of MODES) {
  test(`promise C1: an image is pulled through the subscription's nodes: ${mode}`, async (t: TestContext) => {
    await using resolver = await startDeafResolver();
    const dns = { enable: true, nameserver: [resolver.address], 'default-nameserver': [resolver.address] };
    const started = performance.now();
    await using clash = await startClash({ ...(await configuration()), override: { dns } });
    await until(async () => (await get(clash.proxy, `${hubUrl}/v2/`).catch(() => 0)) === 200, 'no way out');
    const first = (performance.now() - started) / 1000;
    const configs = Number(/clash_configs_total\{outcome="applied"\} (\d+)/.exec(await clash.metrics())?.[1] ?? 0);
    assert.ok(configs <= 1, 'the first config that names the nodes lets the request through');
    await using registry = await registryThrough(clash, { NODE_OPTIONS: TELL_LOOKUPS });
    const before = await downloaded();
    const { digest, size } = await read(`${registry.url}/v2/hub/library/thing/blobs/${layer?.digest}`);
    assert.equal(digest, layer?.digest);
    assert.ok((await downloaded()) - before >= size, 'all of its bytes came by way of the airports');
    assert.equal((await fetch(`${registry.url}/v2/hub/library/thing/manifests/1`)).status, 200);

    assert.deepEqual(
      resolver.asked.filter((question) => question.includes('hub')),
      [],
      'mihomo asked no name server for it',
    );
    await fetch(`${registry.url}/v2/near/library/thing/manifests/1`);
    assert.match(registry.output(), /looked up localhost/, 'a direct upstream is looked up');
    assert.doesNotMatch(registry.output(), /looked up hub/, 'a proxied one never is');

    const asked = subscriptions.requests.at(-1)?.headers['user-agent'];
    if (mode !== 'custom') assert.equal(asked, 'clash.meta/v1.19.32');
    await proven(clash);
    const { nodes, chosen } = await clash.status();
    assert.ok(nodes.some(({ name, alive }) => name === chosen && alive !== false));
    assertNoSecrets(await wordsOf(clash));
    const { resident } = await clash.memory();
    const mihomo = Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${await mihomoOf(clash)}/status`, 'utf8'))?.[1]) / 1024;
    t.diagnostic(
      `start to first proxied request ${first.toFixed(2)} s; RSS ${(resident / MiB).toFixed(0)} MiB, of mihomo ${mihomo.toFixed(0)} MiB`,
    );
  });
}

test('promise C4: a dead node is replaced by a live one; with none, cached images are served and the error names the proxy', async (t) => {
  await using clash = await startClash(over('/nodes'));
  await proven(clash);
  await using registry = await registryThrough(clash);
  assert.equal((await fetch(`${registry.url}/v2/hub/library/thing/manifests/1`)).status, 200);
  const { chosen } = await clash.status();
  const [dying, other] = chosen === 'near' ? [near, far] : [far, near];
  await dying.stop();
  const died = performance.now();
  const before = (await other.traffic()).downloadTotal;
  await until(async () => (await get(clash.proxy, `${hubUrl}/v2/`).catch(() => 0)) === 200, 'the live node is not used');
  const seconds = (performance.now() - died) / 1000;
  t.diagnostic(`the live node is used ${seconds.toFixed(1)} s after the other died, with a health check each second`);
  assert.ok((await other.traffic()).downloadTotal > before);

  await other.stop();
  const manifest = await fetch(`${registry.url}/v2/hub/library/thing/manifests/${image.root.digest}`);
  assert.equal(manifest.status, 200, 'from the cache');
  const missing = await fetch(`${registry.url}/v2/hub/library/other/manifests/1`);
  const text = await missing.clone().text();
  assert.equal(await errorCode(missing), 'UNAVAILABLE');
  assert.match(text, /cannot reach hub\.test/);
  assert.match(await (await fetch(`${registry.admin}/metrics`)).text(), /upstream_requests_total\{upstream="hub",outcome="proxy"\} [1-9]/);
  assert.ok(
    registry.log().some((line) => JSON.stringify(line).includes('"origin":"proxy"')),
    'the log blames the proxy',
  );
  assert.equal((await fetch(`${registry.admin}/readyz`)).status, 200);
  await until(
    async () => /clash_nodes\{subscription="airport",state="down"\} 2/.test(await clash.metrics()),
    'the metrics show no dead nodes',
  );
  assertNoSecrets(`${await wordsOf(clash)}${registry.output()}${text}`);
  await near.start();
  await far.start();
  await until(async () => (await get(clash.proxy, `${hubUrl}/v2/`).catch(() => 0)) === 200, 'the nodes are back, and are not used');
});

test('promise C4: S3 is never reached through the proxy, so stored images are served without clash', async () => {
  await using s3 = await startVersitygw();
  await using clash = await startClash(over('/near'));
  await proven(clash);
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
  const storage = { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } };
  const dead = `http://127.0.0.1:${await freePort()}`;
  const env = { http_proxy: dead, https_proxy: dead, HTTP_PROXY: dead, HTTPS_PROXY: dead, ALL_PROXY: dead };
  const start = () => startRegistry({ storage, proxy: clash.proxy, upstreams: { hub: { url: hubUrl } } }, { env });
  const blob = (registry: ServingProgram) => read(`${registry.url}/v2/hub/library/thing/blobs/${layer?.digest}`);
  {
    await using registry = await start();
    assert.equal((await blob(registry)).digest, layer?.digest);
    const queued = async () =>
      (await (await fetch(`${registry.admin}/metrics`)).text()).match(/^kube_registry_(?:downloads_running|upload_queue_blobs) 0$/gm);
    await until(async () => (await queued())?.length === 2, 'it is not stored');
  }
  await clash.stop();
  await using other = await start();
  assert.equal((await blob(other)).digest, layer?.digest);
});

test('promise C5: the shared listener lets users reach public addresses only', async () => {
  const passwordFile = join(resources.use(await temporaryDirectory()).path, 'password');
  await writeFile(passwordFile, `${PASSWORD}\n`);
  await using clash = await startClash(
    over('/near', {
      ports: { shared: await freePort() },
      users: [{ username: 'builds', passwordFile }],
      override: { hosts: { 'sneaky.test': '127.0.0.1' } },
    }),
  );
  await proven(clash);
  const withPassword = (password: string) => clash.shared.replace('//', `//builds:${password}@`);
  assert.equal(await get(withPassword(PASSWORD), `${hubUrl}/v2/`), 200);
  await assert.rejects(get(clash.shared, `${hubUrl}/v2/`), /40[37]/);
  await assert.rejects(get(withPassword('wrong'), `${hubUrl}/v2/`), /40[37]/);
  const inside = [
    '127.0.0.1',
    'localhost',
    '[::1]',
    '[::ffff:127.0.0.1]',
    '169.254.169.254',
    '10.0.0.1',
    '192.168.1.1',
    '100.100.100.200',
    '[fd00::1]',
    'sneaky.test',
    '0.0.0.0',
  ];
  const port = new URL(hub.url).port;
  const before = await downloaded();
  for (const host of inside) await assert.rejects(get(withPassword(PASSWORD), `http://${host}:${port}/v2/`), /other side closed/, host);
  assert.ok((await downloaded()) - before < 1000, 'nothing of it has left');
  assert.equal(
    await get(clash.proxy, `http://127.0.0.1:${port}/v2/`),
    200,
    'what the registry itself asks for goes to the airport by name or address',
  );

  await writeFile(passwordFile, 'another-password-2\n');
  await until(
    async () => (await get(withPassword('another-password-2'), `${hubUrl}/v2/`).catch(() => 0)) === 200,
    'the new password is not used',
  );
  await assert.rejects(get(withPassword(PASSWORD), `${hubUrl}/v2/`), /40[37]/);
  assertNoSecrets(await wordsOf(clash));
});

test('mihomo is restarted when it dies, and stops with the program', async () => {
  await using clash = await startClash(over('/near'));
  await proven(clash);
  const first = await mihomoOf(clash);
  process.kill(first, 'SIGKILL');
  await until(async () => (await get(clash.proxy, `${hubUrl}/v2/`).catch(() => 0)) === 200, 'the proxy is not back');
  const second = await mihomoOf(clash);
  assert.notEqual(second, first);
  assert.equal((await clash.status()).mihomo.restarts, 1);

  const status = await startProgram('clash', { clash: clash.configuration }, { args: ['status'] });
  assert.equal(await status.exited, 0);
  assert.match(status.output(), /^\* +near +airport +Shadowsocks +\d+ ms$/m);
  assert.match(status.output(), /^airport +\d{4}-.* +1 +3\.0 KiB +1021\.0 KiB +2030-03-17/m);
  assertNoSecrets(`${status.output()}${await wordsOf(clash)}`);
  await status[Symbol.asyncDispose]();

  assert.equal(await clash.stop(), 0);
  assert.ok(!(await readdir('/proc')).includes(String(second)), 'mihomo has gone too');
  assert.equal(await accepts(new URL(clash.proxy).host), false);
});

test('promise C5: a shared port without users is a configuration error, and so is a missing mihomo', async () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [over('/near', { ports: { shared: 7891 } }), /clash\.users: found .*; accepted: at least one user/],
    [over('/near', { mihomo: '/nowhere/mihomo' }), /clash\.mihomo: "\/nowhere\/mihomo" cannot be run \(ENOENT\)/],
    [over('/near', { subscriptions: [] }), /clash\.subscriptions: found nothing/],
    [over('/near', { mode: 'custom' }), /clash\.configFile: found nothing/],
  ];
  for (const [clash, expected] of cases) {
    const program = await startProgram('clash', { clash: { ...clash, admin: '127.0.0.1:0' } });
    const code = await program.exited;
    assert.match(program.output(), expected);
    assert.equal(code, 2);
    await program[Symbol.asyncDispose]();
  }
});
