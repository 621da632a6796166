import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from '../../config/load.ts';
import type { Content } from '../subscription/content.ts';
import { ClashError, nameOf } from '../subscription/document.ts';
import { itemsOf, type Fields } from '../../io/untrusted.ts';
import { render, type Inputs, type Rendered } from './render.ts';

const node = (name: string, more: Fields = {}): Fields => ({
  name,
  type: 'ss',
  server: 's.example',
  port: 1,
  cipher: 'aes-128-gcm',
  password: 'pw',
  ...more,
});
const clash = (document: Fields): Content => ({ kind: 'clash', document });
const uris: Content = { kind: 'uris', text: 'trojan://pw@b.example:443#HK 01' };

function make(own: Fields, subscriptions: Record<string, Content> = {}, more: Partial<Inputs> = {}): Rendered {
  const listed = Object.keys(subscriptions).map((name) => ({ name, url: 'https://air.example' }));
  const { clash: config } = parseConfig({ clash: { subscriptions: listed, ...own } });
  const inputs = {
    subscriptions: new Map(Object.entries(subscriptions)),
    users: [],
    resources: new Map(),
    banned: new Set<string>(),
    ...more,
  };
  return render(inputs, { own: config, secret: 'controller-secret' });
}

const rules = ({ config }: Rendered): string[] => config['rules'] as string[];
const groups = ({ config }: Rendered): Record<string, Fields> =>
  Object.fromEntries(itemsOf(config['proxy-groups']).map((group) => [nameOf(group), JSON.parse(JSON.stringify(group)) as Fields]));
const providers = ({ config }: Rendered) => config['proxy-providers'] as Record<string, Fields>;
const names = (list: unknown): string[] => itemsOf(list).map(nameOf);

test('promise C1: mode nodes has one tested group over every subscription, which refuses traffic when it is empty', () => {
  const rendered = make(
    { mode: 'nodes' },
    { air: clash({ proxies: [node('HK 01'), node('HK 01'), node('out', { type: 'direct' })], rules: ['MATCH,DIRECT'] }), list: uris },
  );
  assert.deepEqual(rules(rendered), ['MATCH,auto']);
  assert.deepEqual(groups(rendered), {
    auto: {
      name: 'auto',
      type: 'url-test',
      url: 'https://registry-1.docker.io/v2/',
      interval: 300,
      'expected-status': '200-299/401/405',
      lazy: false,
      tolerance: 50,
      'empty-fallback': 'REJECT',
      use: ['subscription list', 'subscription air'],
    },
  });
  assert.deepEqual(
    names(providers(rendered)['subscription air']?.['payload']),
    ['air/HK 01', 'air/HK 01 2'],
    'named apart, and no way out that is direct',
  );
  const file = providers(rendered)['subscription list'];
  assert.deepEqual([file?.['type'], file?.['override']], ['file', { 'additional-prefix': 'list/' }]);
  assert.deepEqual([...rendered.files], [[file?.['path'], uris.kind === 'uris' ? uris.text : '']]);

  const alone = make({ mode: 'nodes' }, { air: clash({ proxies: [node('HK 01')] }) });
  assert.deepEqual(names(providers(alone)['subscription air']?.['payload']), ['HK 01'], 'one subscription needs no prefix');
  assert.deepEqual(groups(make({ mode: 'nodes' }))['auto']?.['proxies'], ['REJECT'], 'nothing fetched yet');
});

/** Settings that a subscription may contain, but that must not take effect. */
const HOSTILE: Fields = {
  port: 1,
  'socks-port': 2,
  'mixed-port': 3,
  'redir-port': 4,
  'tproxy-port': 5,
  'allow-lan': true,
  'bind-address': '*',
  authentication: ['a:b'],
  'skip-auth-prefixes': ['0.0.0.0/0'],
  mode: 'direct',
  'external-controller': '0.0.0.0:6',
  'external-controller-tls': '0.0.0.0:7',
  'external-controller-unix': '/tmp/x',
  'external-controller-cors': { 'allow-origins': ['*'] },
  'external-doh-server': '/dns',
  'external-ui': '/etc',
  'external-ui-url': 'http://evil.example/ui.zip',
  secret: '',
  listeners: [{ name: 'evil', type: 'mixed', port: 8 }],
  tunnels: ['tcp,0.0.0.0:9,evil.example:1,DIRECT'],
  tun: { enable: true },
  dns: { enable: true, listen: '0.0.0.0:53' },
  'ss-config': 'ss://x',
  'tuic-server': { enable: true },
  iptables: { enable: true },
  hosts: { 'ghcr.io': '6.6.6.6' },
  sniffer: { enable: true },
  'geox-url': { mmdb: 'http://evil.example/' },
  'geo-auto-update': true,
  'interface-name': 'eth0',
  'routing-mark': 1,
  script: { code: 'x' },
  ntp: { 'write-to-system': true },
  __proto__x: 1,
};

test('promise C1: mode full takes nodes, groups, rules and providers, and nothing else', () => {
  const document = {
    ...HOSTILE,
    proxies: [node('a', { 'interface-name': 'eth0', 'routing-mark': 1 })],
    'proxy-groups': [
      { name: 'Proxy', type: 'select', proxies: ['a', 'more', 'gone'], use: ['far', 'near'], 'interface-name': 'eth0' },
      { name: 'Fast', type: 'url-test', use: ['near'], url: 'http://169.254.169.254/', 'expected-status': 204 },
      { name: 'Odd', type: 'script' },
    ],
    'proxy-providers': {
      far: {
        type: 'http',
        url: 'https://far.example/key',
        path: '/etc/cron.d/x',
        interval: 60,
        'health-check': { url: 'http://10.0.0.1/' },
      },
      near: { type: 'file', path: '../../etc/passwd' },
    },
    'rule-providers': { ads: { type: 'http', behavior: 'domain', url: 'https://far.example/ads', path: './ads' } },
    rules: [
      'RULE-SET,ads,REJECT',
      'RULE-SET,none,REJECT',
      'DOMAIN,x.example,Nowhere',
      'nonsense',
      'GEOIP,CN,DIRECT',
      'MATCH,Proxy',
      'DOMAIN,late,a',
    ],
  };
  const rendered = make({ mode: 'full', ports: { proxy: 7890 } }, { air: clash(document) });
  const { config } = rendered;
  const taken = ['proxies', 'proxy-groups', 'proxy-providers', 'rule-providers', 'rules'];
  const ours = Object.keys(make({ mode: 'nodes' }).config);
  assert.deepEqual(
    Object.keys(config).filter((key) => !ours.includes(key)),
    [],
  );
  for (const [key, value] of Object.entries(HOSTILE)) if (!taken.includes(key)) assert.notDeepEqual(config[key], value, key);
  assert.equal(config['mixed-port'], 7890);
  assert.deepEqual(config['listeners'], []);
  assert.deepEqual(config['proxies'], [node('a')]);
  assert.deepEqual(groups(rendered)['Proxy'], { name: 'Proxy', type: 'select', proxies: ['a'], use: ['far'], 'empty-fallback': 'REJECT' });
  assert.deepEqual(groups(rendered)['Fast'], {
    name: 'Fast',
    type: 'url-test',
    url: 'https://registry-1.docker.io/v2/',
    interval: 300,
    'expected-status': '200-299/401/405',
    proxies: ['REJECT'],
    'empty-fallback': 'REJECT',
  });
  assert.deepEqual(rules(rendered), ['RULE-SET,ads,REJECT', 'GEOIP,CN,DIRECT', 'MATCH,Proxy']);
  const [far, ads] = rendered.resources;
  assert.deepEqual([far?.url, far?.own, far?.interval], ['https://far.example/key', false, 3_600_000]);
  assert.equal(providers(rendered)['far']?.['path'], `providers/${far?.key}-none`);
  assert.deepEqual(Object.keys((config['rule-providers'] as Fields)['ads'] as Fields), ['type', 'behavior', 'payload']);
  assert.equal(ads?.url, 'https://far.example/ads');
  assert.ok(rendered.notes.some((note) => note.includes('proxy-provider "near" is left out')));
  assert.ok(rendered.notes.some((note) => note.includes('rules[2]: "DOMAIN,x.example,Nowhere" names "Nowhere"')));
});

test('a chained node is kept together with its dialer-proxy in every mode; a node whose dialer-proxy is missing is left out with a note', () => {
  const document = {
    proxies: [
      node('hop'),
      node('b', { 'dialer-proxy': 'hop' }),
      node('c', { 'dialer-proxy': 'G' }),
      node('d', { 'dialer-proxy': 'gone' }),
      node('e', { 'dialer-proxy': 'd' }),
      node('f', { 'dialer-proxy': 'g' }),
      node('g', { 'dialer-proxy': 'f' }),
      node('h', { 'dialer-proxy': 'DIRECT' }),
    ],
    'proxy-groups': [
      { name: 'G', type: 'select', proxies: ['H'] },
      { name: 'H', type: 'select', proxies: ['hop', 'G'] },
    ],
  };
  const provider = {
    type: 'http',
    url: 'https://p.example/x',
    header: { 'X-Key': ['k1', 'k2'] },
    'dialer-proxy': 'hop',
    override: { 'dialer-proxy': 'G', 'routing-mark': 1 },
  };
  const air = clash({ ...document, 'proxy-providers': { p: provider, q: { ...provider, 'dialer-proxy': 'gone', override: {} } } });
  const rendered = make({ mode: 'nodes' }, { air, list: uris });
  assert.deepEqual(names(providers(rendered)['subscription air']?.['payload']), ['air/hop', 'air/b', 'air/c', 'air/h']);
  assert.deepEqual(names(rendered.config['proxies']), ['air/hop'], 'a node that others are chained to is kept under its own name');
  const dialers = itemsOf(providers(rendered)['subscription air']?.['payload']).map((item) => item['dialer-proxy']);
  assert.deepEqual(dialers, [undefined, 'air/hop', 'subscription air, group G', 'DIRECT']);
  assert.deepEqual(groups(rendered)['subscription air, group G']?.['proxies'], ['subscription air, group H']);
  assert.deepEqual(groups(rendered)['subscription air, group H']?.['proxies'], ['air/hop']);
  const inner = providers(rendered)['subscription air p'];
  assert.equal(inner?.['dialer-proxy'], 'air/hop');
  assert.deepEqual(inner?.['override'], { 'dialer-proxy': 'subscription air, group G', 'additional-prefix': 'air/' });
  assert.deepEqual(rendered.resources[0]?.headers, { 'X-Key': 'k1, k2' });
  assert.deepEqual(groups(rendered)['auto']?.['use'], ['subscription air p', 'subscription list', 'subscription air']);
  const full = make({ mode: 'full' }, { list: uris, air });
  assert.deepEqual(names(full.config['proxies']), ['hop', 'b', 'c', 'h']);
  assert.equal(providers(full)['p']?.['dialer-proxy'], 'hop');
  for (const { notes } of [rendered, full]) {
    const left = notes.filter((note) => note.includes('left out: its'));
    assert.deepEqual(
      left.map((note) => /(?:node|provider) "([^"]*)"/.exec(note)?.[1]?.replace('air/', '').replace('subscription air ', '')),
      ['d', 'f', 'g', 'e', 'q'],
    );
  }
  assert.throws(
    () => make({ override: { proxies: { append: [node('x', { 'dialer-proxy': 'gone' })] } } }, { air }),
    /clash\.override\.proxies\.append\[0\]: node "x": its dialer-proxy "gone" is not there/,
  );
});

test('names that are numbers, and a group with the name of a node', () => {
  const document = {
    proxies: [node('a'), { ...node(''), name: 7 }, { ...node(''), name: 1.5 }],
    'proxy-groups': [
      { name: 'a', type: 'select', proxies: ['a', 7, 1.5] },
      { name: 'b', type: 'select', proxies: ['c', 'a'] },
      { name: 'c', type: 'select', proxies: ['b'] },
    ],
    rules: ['DOMAIN,x,7', 'MATCH,a'],
  };
  const rendered = make({ mode: 'full' }, { air: clash(document) });
  assert.deepEqual(names(rendered.config['proxies']), ['a 2', '7', '1.5E+00']);
  assert.deepEqual(groups(rendered)['a']?.['proxies'], ['a 2', '7', '1.5E+00']);
  assert.deepEqual([groups(rendered)['b']?.['proxies'], groups(rendered)['c']?.['proxies']], [['c', 'a'], ['REJECT']]);
  assert.deepEqual(rules(rendered), ['DOMAIN,x,7', 'MATCH,a']);
});

test('a node at a port of this sidecar itself is left out with a note', () => {
  const at = (name: string, server: string, port: unknown) => node(name, { server, port });
  const loops = [at('a', '127.0.0.1', 7890), at('b', 'LocalHost', '9090'), at('c', '::1', 5003), at('d', '0.0.0.0', 7891)];
  const others = [at('e', '127.0.0.1', 7892), at('f', 'proxy.example', 7890)];
  const base64 = Buffer.from(JSON.stringify({ ps: 'h', add: '127.0.0.1', port: 7890 })).toString('base64');
  const list: Content = { kind: 'uris', text: `trojan://pw@127.0.0.1:7890#g\nvmess://${base64}\ntrojan://pw@s.example:1#i` };
  const users = [{ username: 'u', password: 'p' }];
  const own = { ports: { shared: 7891 }, users, override: { proxies: { append: [at('j', '127.0.0.1', 7890)] } } };
  const provider = { type: 'inline', payload: [at('k', '127.0.0.1', 7890), at('l', 's.example', 1)] };
  for (const mode of ['nodes', 'full']) {
    const air = clash({ proxies: [...loops, ...others], 'proxy-providers': { p: provider } });
    const rendered = make({ ...own, mode }, { air, list }, { users });
    const text = JSON.stringify(rendered.config) + [...rendered.files.values()].join();
    for (const name of ['a', 'b', 'c', 'd', 'g', 'h', 'j', 'k']) {
      assert.ok(
        rendered.notes.some((note) => note.includes(`node "${name}" is left out: its address is a port of this sidecar`)),
        `${mode} ${name}`,
      );
    }
    for (const name of ['e', 'f']) assert.match(text, new RegExp(`"(?:air/)?${name}"`));
    assert.deepEqual([...rendered.files.values()], ['trojan://pw@s.example:1#i']);
    assert.doesNotMatch(text, /"(?:air\/)?[abcdjk]"/);
  }
});

test('mode full: entries with the same name in several subscriptions are kept apart, and the first subscription with a live node is used', () => {
  const one = { proxies: [node('a')], 'proxy-groups': [{ name: 'P', type: 'select', proxies: ['a'] }], rules: ['DOMAIN,x,P', 'MATCH,P'] };
  const two = {
    proxies: [node('a'), node('b', { 'dialer-proxy': 'a' })],
    'proxy-groups': [{ name: 'P', type: 'select', proxies: ['a', 'b', 'DIRECT'] }],
    rules: ['DOMAIN,y,P,no-resolve'],
  };
  const rendered = make({ mode: 'full' }, { one: clash(one), two: clash(two), list: uris });
  assert.deepEqual(names(rendered.config['proxies']), ['a', 'a (two)', 'b']);
  assert.equal(itemsOf(rendered.config['proxies'])[2]?.['dialer-proxy'], 'a (two)');
  assert.deepEqual(groups(rendered)['P (two)']?.['proxies'], ['a (two)', 'b', 'DIRECT']);
  assert.deepEqual(groups(rendered)['list']?.['use'], ['subscription list']);
  assert.deepEqual(groups(rendered)['auto']?.['proxies'], ['P', 'P (two)', 'list']);
  assert.deepEqual(rules(rendered), ['DOMAIN,x,P', 'DOMAIN,y,P (two),no-resolve', 'MATCH,auto']);
});

test("promise C1: mode custom is the user's own file, except for the locked keys", () => {
  const custom = {
    'mixed-port': 1,
    secret: 'x',
    mode: 'global',
    dns: { enable: true, listen: ':53', nameserver: ['1.1.1.1'] },
    ipv6: false,
    proxies: [node('vps')],
    'proxy-groups': [{ name: 'out', type: 'url-test', proxies: ['vps'], url: 'http://own.example/', interval: 9 }],
    rules: ['DOMAIN-SUFFIX,corp.example,DIRECT'],
  };
  const rendered = make({ mode: 'custom', configFile: '/x' }, {}, { custom });
  assert.deepEqual(rules(rendered), ['DOMAIN-SUFFIX,corp.example,DIRECT', 'MATCH,out'], 'no direct connection unless the config says so');
  assert.deepEqual(rendered.config['dns'], { enable: true, listen: '', nameserver: ['1.1.1.1'] });
  assert.deepEqual([rendered.config['ipv6'], rendered.config['mode'], rendered.config['secret']], [false, 'rule', 'controller-secret']);
  assert.equal(groups(rendered)['out']?.['url'], 'http://own.example/');
  assert.deepEqual(
    rendered.notes,
    ['mixed-port', 'secret', 'mode', 'dns.listen'].map((key) => `clash.configFile: ${key} is locked; its value is ignored`),
  );
});

test('promise C2: overrides edit lists by name and merge into the rest, and locked keys are applied last', () => {
  const document = {
    proxies: [node('a'), node('b'), node('c')],
    'proxy-groups': [{ name: 'P', type: 'select', proxies: ['a', 'b', 'c'] }],
    rules: ['DOMAIN,x,P', 'DOMAIN,y,P', 'MATCH,P'],
  };
  const override = {
    proxies: { prepend: [node('first')], append: [node('last')], delete: ['b'], override: [{ name: 'a', port: 99 }] },
    'proxy-groups': { append: [{ name: 'Q', type: 'url-test', proxies: ['last'] }], override: [{ name: 'P', type: 'fallback' }] },
    rules: { prepend: ['DOMAIN,new,Q'], append: ['DOMAIN,end,DIRECT'], delete: ['DOMAIN, y, P', 'DOMAIN,unknown,P'] },
    dns: { enable: true, nameserver: ['223.5.5.5'], listen: '0.0.0.0:53' },
    'mixed-port': 1,
    'log-level': 'info',
  };
  const rendered = make({ mode: 'full', override }, { air: clash(document) });
  assert.deepEqual(names(rendered.config['proxies']), ['first', 'a', 'c', 'last']);
  assert.equal(itemsOf(rendered.config['proxies'])[1]?.['port'], 99);
  assert.equal(itemsOf(rendered.config['proxies'])[1]?.['server'], 's.example', 'keys that are not named stay');
  assert.deepEqual([groups(rendered)['P']?.['type'], groups(rendered)['P']?.['proxies']], ['fallback', ['a', 'c']]);
  assert.deepEqual(rules(rendered), ['DOMAIN,new,Q', 'DOMAIN,x,P', 'DOMAIN,end,DIRECT', 'MATCH,P']);
  assert.equal(rendered.config['mixed-port'], 7890);
  assert.equal(rendered.config['log-level'], 'info');
  assert.deepEqual(rendered.config['dns'], { enable: true, nameserver: ['223.5.5.5'], listen: '' });
  assert.ok(rendered.notes.includes('clash.override.rules.delete[1]: there is no rule "DOMAIN,unknown,P" to delete'));
  assert.ok(rendered.notes.includes('clash.override.mixed-port is locked; its value is ignored'));

  const instead = make({ mode: 'full', override: { rules: { override: ['MATCH,DIRECT'] } } }, { air: clash(document) });
  assert.deepEqual(rules(instead), ['MATCH,DIRECT', 'MATCH,P']);
  const filtered = make(
    { override: { proxies: { delete: ['HK 01'] }, 'proxy-groups': { override: [{ name: 'auto', filter: 'HK' }] } } },
    { list: uris },
  );
  assert.equal(providers(filtered)['subscription list']?.['exclude-filter'], '^(?:\\x48K\\x2001)$');
  assert.equal(groups(filtered)['auto']?.['filter'], 'HK');
  const named = make({ override: { rules: { prepend: ['DOMAIN,x,a'] } } }, { air: clash(document) });
  assert.deepEqual(names(named.config['proxies']), ['a'], 'a node that a rule names is kept under its own name');
});

const WRONG: [string, Fields, RegExp][] = [
  [
    'a rule with an unknown group',
    { rules: { prepend: ['DOMAIN,x,Nope'] } },
    /^clash\.override\.rules\.prepend\[0\]: "DOMAIN,x,Nope" names "Nope", and there is no group or node of that name; there are auto, DIRECT/,
  ],
  [
    'a rule with an unknown provider',
    { rules: { append: ['RULE-SET,ads,DIRECT'] } },
    /rules\.append\[0\]: "RULE-SET,ads,DIRECT" names the rule-provider "ads", which does not exist; there are none/,
  ],
  ['a rule that is none', { rules: { prepend: ['x'] } }, /rules\.prepend\[0\]: "x" is not a rule/],
  ['a rule that is no text', { rules: { prepend: [{ a: 1 }] } }, /rules\.prepend\[0\]: expected a rule such as/],
  [
    'an override of an unknown group',
    { 'proxy-groups': { override: [{ name: 'Nope' }] } },
    /^clash\.override\.proxy-groups\.override\[0\]: there is no group "Nope"; there are auto/,
  ],
  [
    'an override of an unknown node',
    { proxies: { override: [{ name: 'Nope' }] } },
    /proxies\.override\[0\]: there is no node "Nope"; there are a$/,
  ],
  [
    'a group with an unknown member',
    { 'proxy-groups': { append: [{ name: 'G', type: 'select', proxies: ['Nope'] }] } },
    /proxy-groups\.append\[0\]: the group "G" names the group or node "Nope", which does not exist/,
  ],
  [
    'a group without a name',
    { 'proxy-groups': { prepend: [{ type: 'select' }] } },
    /proxy-groups\.prepend\[0\]: expected a group with a name/,
  ],
];

for (const [what, override, expected] of WRONG) {
  test(`an override with ${what} is reported with its place`, () => {
    assert.throws(
      () => make({ override }, { air: clash({ proxies: [node('a')] }) }),
      (error: unknown) => error instanceof ClashError && expected.test(error.message),
    );
  });
}

test('promise C5: the shared listener has users, and its first rule refuses internal addresses', () => {
  const users = [{ username: 'u', password: 'p' }];
  const own = { ports: { shared: 7891 }, users, override: { rules: { prepend: ['DOMAIN,x,DIRECT'] } } };
  const rendered = make(own, {}, { users });
  assert.deepEqual(rendered.config['listeners'], [{ name: 'shared', type: 'mixed', listen: '0.0.0.0', port: 7891, udp: false, users }]);
  assert.match(rules(rendered)[0] ?? '', /^AND,\(\(IN-NAME,shared\),\(OR,.*\(IP-CIDR,10\.0\.0\.0\/8\).*\)\),REJECT$/);
  for (const [wrong, expected] of [
    [{ ports: { shared: 7891 } }, /clash\.users: .*at least one user/],
    [{ ports: { proxy: 0 } }, /clash\.ports\.proxy: .*both are off/],
  ] as const) {
    assert.throws(() => make(wrong), expected);
  }
});

test('a line of an inline rule set that is not text is dropped, and a note names it', () => {
  const ads = {
    type: 'inline',
    behavior: 'domain',
    payload: ['+.ads.example', true, { domain: 'b.example' }, 127001, ['x'], null, 'c.example'],
  };
  const rendered = make(
    { mode: 'full' },
    { air: clash({ proxies: [node('HK 01')], 'rule-providers': { ads }, rules: ['RULE-SET,ads,REJECT', 'MATCH,HK 01'] }) },
  );
  assert.deepEqual((rendered.config['rule-providers'] as Record<string, Fields>)['ads']?.['payload'], [
    '+.ads.example',
    127001,
    'c.example',
  ]);
  assert.ok(rules(rendered).includes('RULE-SET,ads,REJECT'));
  assert.ok(
    rendered.notes.includes('subscription air: rule-provider "ads": lines 2, 3, 5, 6 of its payload left out: a rule is text'),
    rendered.notes.join('\n'),
  );
});
