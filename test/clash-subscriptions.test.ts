import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  startClash,
  startSubscriptionServer,
  SUBSCRIPTION_KEY,
  through,
  type Answer,
  type ClashProgram,
  type SubscriptionServer,
} from './support/clash.ts';
import { startAirport, type Airport } from './support/mihomo.ts';
import { accepts } from './support/process.ts';
import { until } from './support/until.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { listenOnLoopback } from './support/http.ts';

const resources = new AsyncDisposableStack();
let subscriptions: SubscriptionServer;
let near: Airport;
let far: Airport;
/** The URL of a server that the subscriptions reach by its name: / answers at once, /slow takes
 *  three seconds. */
let site: string;

before(async () => {
  subscriptions = resources.use(await startSubscriptionServer());
  const hosts = { 'site.test': '127.0.0.1', 'blocked.test': '127.0.0.1', 'lines.test': '127.0.0.1' };
  near = resources.use(await startAirport({ hosts, name: 'near' }));
  far = resources.use(await startAirport({ hosts, name: 'far' }));
  const server = createServer((request, response) => {
    if (request.url !== '/slow') {
      response.end('here');
      return;
    }
    const timer = setInterval(() => response.write('x'.repeat(1000)), 100);
    setTimeout(() => (clearInterval(timer), response.end()), 3000);
  });
  site = `http://site.test:${resources.use(await listenOnLoopback(server)).port}`;
});
after(() => resources.disposeAsync());

const nodes = (...airports: Airport[]) => JSON.stringify({ proxies: airports.map(({ node }) => node) });
const dead = async () => JSON.stringify({ proxies: [{ ...near.node, name: 'dead', port: await freePort() }] });
const works = async ({ proxy }: ClashProgram) => (await through(proxy, `${site}/`).catch(() => undefined))?.body === 'here';
const healthCheck = () => ({ url: `${site}/`, interval: '1s' });

/** A subscription whose URL is in a file: if the file changes, the subscription is downloaded at
 *  once. */
async function switched(path: string): Promise<{ subscriptions: unknown[]; to: (path: string) => Promise<void> }> {
  const urlFile = join(resources.use(await temporaryDirectory()).path, 'url');
  const to = (path: string) => writeFile(urlFile, `${subscriptions.url(path)}\n`);
  await to(path);
  return { subscriptions: [{ name: 'airport', urlFile, interval: '1h' }], to };
}

const BOMB = [
  'a: &a [x, x, x, x, x, x, x, x, x]',
  ...Array.from('bcdefghij', (letter, n) => `${letter}: &${letter} [${Array(9).fill(`*${'abcdefghi'[n]}`).join(', ')}]`),
];

const BAD: Record<string, [Answer | undefined, RegExp]> = {
  missing: [undefined, /answered with 404/],
  html: ['<html><body>expired</body></html>', /web page/],
  empty: ['', /empty/],
  truncated: ['proxies:\n  - {name: a, type: ss, server: 1.1.1.1, po', /not valid YAML/],
  huge: [(_, response) => response.end(Buffer.alloc(50 * 2 ** 20, 'x')), /more than 4 MiB/],
  invalid: ['proxies: [}', /not valid YAML/],
  bomb: [`${BOMB.join('\n')}\nproxies: []`, /expands? too far/],
  none: ['proxies: []', /no node/],
  unknown: ['proxies: [{name: a, type: quantum, server: a.example, port: 1}]', /mihomo understands none of its nodes/],
  garbage: [Buffer.from('ss://garbage\nvmess://garbage\n').toString('base64'), /mihomo finds no node/],
  loop: [(request, response) => response.writeHead(302, { location: request.url }).end(), /redirects more than 5/],
  inside: [(_, response) => response.writeHead(302, { location: 'http://169.254.169.254/latest/meta-data' }).end(), /internal address/],
};

test('promise C4: bad subscriptions are reported one by one, and harm nothing else', async (t) => {
  for (const [name, [answer]] of Object.entries(BAD)) if (answer !== undefined) subscriptions.answers.set(`/${name}`, answer);
  const twice = JSON.stringify({ proxies: [near.node, near.node, { ...near.node, name: 'odd', type: 'quantum' }], 'mixed-port': 1 });
  subscriptions.answers.set('/good', twice);
  const listed = ['good', ...Object.keys(BAD)].map((name) => ({ name, url: subscriptions.url(`/${name}`) }));
  await using clash = await startClash({ subscriptions: listed, healthCheck: healthCheck() });
  await until(() => works(clash), 'the good one is not used');
  await until(
    async () => (await clash.status()).subscriptions.filter(({ problem }) => problem !== undefined).length >= listed.length - 1,
    'the result is truncated',
  );
  const status = await clash.status();
  for (const { name, problem } of status.subscriptions) {
    const expected = BAD[name]?.[1];
    if (expected === undefined) assert.equal(problem, undefined);
    else assert.match(problem ?? 'nothing', expected, name);
  }
  assert.deepEqual(
    status.nodes.map(({ name }) => name),
    ['good/near', 'good/near 2'],
    'a node that mihomo does not know is left out alone',
  );
  assert.ok(await works(clash));
  const { resident } = await clash.memory();
  t.diagnostic(`RSS after ${listed.length} subscriptions ${(resident / 2 ** 20).toFixed(0)} MiB`);
  const words = clash.output() + JSON.stringify(status) + (await clash.metrics());
  assert.ok(!words.includes(SUBSCRIPTION_KEY) && !words.includes(near.node.password));
});

test('promise C3: a changed subscription is applied without cutting connections, and one that does not work is rolled back', async () => {
  subscriptions.answers.set('/near', nodes(near));
  subscriptions.answers.set('/far', nodes(far));
  subscriptions.answers.set('/dead', await dead());
  const { subscriptions: listed, to } = await switched('/near');
  await using clash = await startClash({ subscriptions: listed, healthCheck: healthCheck() });
  await until(async () => (await clash.status()).config.proven, 'the first is not used');
  const chosen = async (name: string) =>
    until(async () => (await clash.status()).chosen === name && (await clash.status()).config.proven, `${name} is not used`);

  await chosen('near');
  const slow = through(clash.proxy, `${site}/slow`);
  await delay(300);
  await to('/far');
  await chosen('far');
  const before = (await far.traffic()).downloadTotal;
  assert.ok(await works(clash));
  assert.ok((await far.traffic()).downloadTotal > before);
  assert.ok((await slow).body.length > 20_000, 'the connection by way of the former node has come to its end');

  await to('/dead');
  await until(
    async () => /nothing can be reached/.test((await clash.status()).subscriptions[0]?.problem ?? ''),
    'the dead one is not refused',
  );
  await chosen('far');
  assert.ok(await works(clash));
  await to('/html');
  await until(async () => /web page/.test((await clash.status()).subscriptions[0]?.problem ?? ''), 'the web page is not refused');
  assert.ok(await works(clash));
  const metrics = await clash.metrics();
  assert.match(metrics, /clash_configs_total\{outcome="applied"\} 2/);
  assert.match(metrics, /clash_configs_total\{outcome="unproven"\} [1-9]/);
  assert.match(metrics, /clash_subscription_failing\{subscription="airport"\} 1/);
  assert.match(metrics, /clash_subscription_left_bytes\{subscription="airport"\} 1045504/);
  assert.ok(!(clash.output() + metrics).includes(SUBSCRIPTION_KEY));
});

test('promise C4: a first start with a dead subscription succeeds and recovers, and a later one uses the last good copy', async () => {
  subscriptions.answers.delete('/late');
  const { path: directory } = resources.use(await temporaryDirectory());
  const own = { directory, healthCheck: healthCheck(), subscriptions: [{ name: 'airport', url: subscriptions.url('/late') }] };
  {
    await using clash = await startClash(own);
    await until(async () => (await clash.status()).subscriptions[0]?.problem === 'the server answered with 404', 'it is not told');
    await assert.rejects(through(clash.proxy, `${site}/`), /other side closed/, 'refused: nothing goes out directly');
    subscriptions.answers.set('/late', nodes(near));
    await until(() => works(clash), 'it does not recover');
  }
  subscriptions.answers.delete('/late');
  await using clash = await startClash({ ...own, subscriptions: [{ ...own.subscriptions[0], url: subscriptions.url('/gone') }] });
  await until(() => works(clash), 'the last good copy is not used');
  await until(async () => (await clash.status()).subscriptions[0]?.problem === 'the server answered with 404', 'it is not told');
});

test('promise C3: an override that names a missing entry is reported with its place, and the last good config stays', async () => {
  subscriptions.answers.set('/near', nodes(near));
  const { path: directory } = resources.use(await temporaryDirectory());
  const own = { directory, healthCheck: healthCheck(), subscriptions: [{ name: 'airport', url: subscriptions.url('/near') }] };
  {
    await using clash = await startClash(own);
    await until(async () => (await clash.status()).config.proven, 'nothing goes through');
  }
  const cases: [Record<string, unknown>, RegExp][] = [
    [
      { rules: { prepend: ['DOMAIN,x.example,Nope'] } },
      /clash\.override\.rules\.prepend\[0\]: "DOMAIN,x\.example,Nope" names "Nope", and there is no group or node/,
    ],
    [{ rules: { append: ['QUANTUM,x.example,auto'] } }, /clash\.override\.rules\.append\[0\]: .*unsupported rule type/],
  ];
  for (const [override, expected] of cases) {
    const shared = { ports: { shared: await freePort() }, users: [{ username: 'me', password: 'word' }] };
    await using clash = await startClash({ ...own, ...shared, override });
    await until(() => works(clash), 'what was good before is not used');
    const withPassword = clash.shared.replace('//', '//me:word@');
    assert.equal((await through(withPassword, `${site}/`)).body, 'here', 'with the ports of today');
    await assert.rejects(through(withPassword, site.replace('site.test', '127.0.0.1')), /other side closed/, 'and its rules');
    assert.match((await clash.status()).config.problem ?? '', expected);
    assert.ok(clash.log().some(({ level, msg }) => level === 'error' && expected.test(msg)));
  }
});

test('promise C1: settings of a full subscription for this machine never reach mihomo, and its ports stay closed', async () => {
  const ports = await Promise.all(Array.from({ length: 8 }, () => freePort()));
  const [a, b, c, d, e, f, g, h] = ports;
  const hostile = {
    port: a,
    'socks-port': b,
    'mixed-port': c,
    'redir-port': d,
    'allow-lan': true,
    'bind-address': '*',
    authentication: ['a:b'],
    mode: 'direct',
    'log-level': 'debug',
    'external-controller': `0.0.0.0:${e}`,
    'external-ui': '/etc',
    'external-ui-url': subscriptions.url('/ui.zip'),
    secret: '',
    listeners: [{ name: 'evil', type: 'mixed', listen: '0.0.0.0', port: f }],
    tunnels: [`tcp,127.0.0.1:${g},127.0.0.1:1,DIRECT`],
    dns: { enable: true, listen: `127.0.0.1:${h}`, nameserver: ['127.0.0.1'] },
    tun: { enable: true },
    'geo-auto-update': true,
    'geox-url': { mmdb: subscriptions.url('/mmdb') },
    'interface-name': 'eth7',
    'routing-mark': 7,
    proxies: [near.node],
    'proxy-providers': {
      passwd: { type: 'file', path: '/etc/passwd' },
      inner: { type: 'http', url: subscriptions.url('/inner'), path: '../../x' },
    },
    'proxy-groups': [{ name: 'P', type: 'select', proxies: ['near'], use: ['passwd', 'inner'] }],
    rules: ['MATCH,P'],
  };
  subscriptions.answers.set('/hostile', JSON.stringify(hostile));
  await using clash = await startClash({
    mode: 'full',
    subscriptions: [{ name: 'airport', url: subscriptions.url('/hostile') }],
    healthCheck: healthCheck(),
  });
  await until(() => works(clash), 'its node is not used');
  const { secret } = JSON.parse(await readFile(join(clash.directory, 'config.json'), 'utf8')) as { secret: string };
  const headers = { authorization: `Bearer ${secret}` };
  assert.equal((await fetch(`http://${clash.controller}/configs`)).status, 401, 'the controller has a secret');
  const configs = (await (await fetch(`http://${clash.controller}/configs`, { headers })).json()) as Record<string, unknown>;
  const expected = {
    port: 0,
    'socks-port': 0,
    'redir-port': 0,
    'tproxy-port': 0,
    'allow-lan': false,
    'bind-address': '127.0.0.1',
    authentication: null,
    mode: 'rule',
    'log-level': 'warning',
    'interface-name': '',
    'routing-mark': 0,
    'geo-auto-update': false,
  };
  for (const [key, value] of Object.entries(expected)) assert.deepEqual(configs[key], value, key);
  assert.ok(!ports.includes(Number(configs['mixed-port'])), 'mihomo listens on a port of our choice');
  assert.equal((configs['tun'] as { enable: boolean }).enable, false);
  for (const port of ports) assert.equal(await accepts(`127.0.0.1:${port}`), false, `port ${port} is closed`);
  assert.deepEqual(
    subscriptions.requests.filter(({ path }) => ['/ui.zip', '/mmdb', '/inner'].includes(path)),
    [],
    'nothing inside is fetched for it',
  );
  const noted = async () => (await clash.status()).config.notes.some((note) => note.includes('"passwd" is left out'));
  await until(noted, 'what was left out is not told');
});

test('a subscription that hides its nodes from one User-Agent is requested with others, and the log shows the result of each', async () => {
  subscriptions.answers.set('/choosy', (request, response) => {
    response.end(/clash-verge/.test(request.headers['user-agent'] ?? '') ? nodes(near) : '<html>unknown client</html>');
  });
  await using clash = await startClash({
    subscriptions: [{ name: 'airport', url: subscriptions.url('/choosy') }],
    healthCheck: healthCheck(),
  });
  await until(() => works(clash), 'its node is not used');
  const tried = clash.log().filter((line) => line['event'] === 'clash-user-agent-tried');
  assert.deepEqual(
    tried.map((line) => [line['userAgent'], line['nodes']]),
    [
      ['clash.meta/v1.19.32', 0],
      ['clash-verge/v2.4.2', 1],
    ],
  );
});

test('many bad entries of every kind cost themselves alone', async () => {
  const many = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, index) => make(index));
  const document = {
    proxies: [
      ...many(70, (index) => ({ ...near.node, name: `cipher ${index}`, cipher: `odd-${index}` })),
      ...many(70, (index) => ({ name: `type ${index}`, type: `quantum${index % 3}` })),
      { ...near.node, name: 'chained', 'dialer-proxy': 'cipher 1' },
      { ...near.node, name: 'DEL \x7F' },
      near.node,
    ],
    'proxy-providers': {
      inline: {
        type: 'inline',
        payload: [
          { ...near.node, name: 'bad', port: 'x' },
          { ...near.node, name: 'inner' },
        ],
      },
      filter: { type: 'inline', filter: '(', payload: [near.node] },
    },
    'proxy-groups': [
      { name: 'Filter', type: 'select', proxies: ['near'], filter: '(' },
      { name: 'Strategy', type: 'load-balance', strategy: 'odd', proxies: ['near'] },
      { name: 'P', type: 'select', proxies: ['near', 'chained', 'cipher 3'], use: ['inline', 'filter'] },
    ],
    'rule-providers': {
      odd: { type: 'inline', behavior: 'odd', payload: ['x'] },
      lines: { type: 'inline', behavior: 'domain', payload: [true, { domain: 'x' }, 'a..b', 'lines.test'] },
    },
    rules: [
      ...many(60, (index) => `IP-CIDR,odd-${index},P`),
      ...many(60, (index) => `QUANTUM${index % 2},x${index},P`),
      'RULE-SET,odd,P',
      'RULE-SET,lines,REJECT',
      'DOMAIN,blocked.test,REJECT',
      'DOMAIN,x.test,Filter',
      'MATCH,P',
    ],
  };
  subscriptions.answers.set('/many', JSON.stringify(document));
  await using clash = await startClash({
    mode: 'full',
    subscriptions: [{ name: 'airport', url: subscriptions.url('/many') }],
    healthCheck: healthCheck(),
  });
  await until(() => works(clash), 'the good entries are not used');
  const names = async () => (await clash.status()).nodes.map(({ name }) => name).sort();
  await until(async () => (await names()).join() === 'inner,near', 'other nodes are used');
  const { config } = await clash.status();
  await assert.rejects(through(clash.proxy, site.replace('site', 'blocked')), 'a good rule between bad ones is used');
  await assert.rejects(through(clash.proxy, site.replace('site', 'lines')), 'a good line of a rule set between bad ones is used');
  for (const expected of [
    /nodes "cipher \d+".* more: each for a reason of its own/,
    /24 nodes "type 0"/,
    /chained.*left out/,
    /120 rules are left out/,
    /rule-provider "lines": lines 1, 2 of its payload left out/,
    /2 groups/,
  ]) {
    assert.ok(
      config.notes.some((note) => expected.test(note)),
      `${String(expected)}: ${config.notes.join(' | ')}`,
    );
  }
});

test('geo rules without geo files are left out, and nothing is downloaded', async () => {
  const rules = ['GEOIP,CN,REJECT', 'GEOSITE,google,REJECT', 'MATCH,P'];
  subscriptions.answers.set(
    '/geo',
    JSON.stringify({ proxies: [near.node], 'proxy-groups': [{ name: 'P', type: 'select', proxies: ['near'] }], rules }),
  );
  await using clash = await startClash({
    mode: 'full',
    geodata: '/nowhere',
    subscriptions: [{ name: 'airport', url: subscriptions.url('/geo') }],
    healthCheck: healthCheck(),
  });
  await until(() => works(clash), 'the rest is not used');
  assert.ok(
    clash.log().some(({ msg }) => /left out, since mihomo does not understand it: subscription airport, rules\[0\]: \[GEOIP/.test(msg)),
  );
});

test("a provider's URL in the user's own config is downloaded and refreshed by the program", async () => {
  const file = join(resources.use(await temporaryDirectory()).path, 'custom.yaml');
  subscriptions.answers.set('/rules', "payload:\n  - 'blocked.test'\n");
  subscriptions.answers.set('/more', nodes(far));
  const custom = {
    proxies: [near.node],
    'proxy-providers': { more: { type: 'http', url: subscriptions.url('/more'), interval: 3600 } },
    'rule-providers': { blocked: { type: 'http', behavior: 'domain', url: subscriptions.url('/rules'), interval: 3600 } },
    'proxy-groups': [{ name: 'P', type: 'fallback', use: ['more'], proxies: ['near'] }],
    rules: ['RULE-SET,blocked,REJECT', 'MATCH,P'],
  };
  await writeFile(file, JSON.stringify(custom));
  const { path: directory } = resources.use(await temporaryDirectory());
  const own = { mode: 'custom', configFile: file, directory, healthCheck: healthCheck() };
  const clash = await startClash(own);
  resources.use(clash);
  await until(async () => (await clash.status()).nodes.length === 2, "the provider's node is not there");
  const blocked = async () => (await through(clash.proxy, site.replace('site', 'blocked')).catch(() => ({ body: 'refused' }))).body;
  // A single refusal may also be due to a missing live node.
  await until(async () => (await works(clash)) && (await blocked()) === 'refused', 'the rules are not used');
  assert.ok(!(await readFile(join(clash.directory, 'config.json'), 'utf8')).includes(SUBSCRIPTION_KEY), 'mihomo knows no URL');
  await writeFile(file, JSON.stringify({ ...custom, rules: ['MATCH,P'] }));
  await until(async () => (await blocked()) === 'here', 'the changed file is not used');
  await writeFile(file, 'rules: [');
  await until(() => clash.log().some(({ msg }) => msg.startsWith('clash.configFile: it is not valid YAML')), 'the broken file is not told');
  assert.match((await clash.status()).config.problem ?? '', /clash\.configFile: it is not valid YAML/);
  assert.ok(await works(clash));
  await until(async () => (await clash.status()).config.proven, 'it is not remembered as good');
  await clash.stop();
  await using later = await startClash(own);
  await until(() => works(later), 'the broken file is not replaced by what was good last');
});
