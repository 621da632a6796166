import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeConfig } from '../src/clash/config/encode.ts';
import { render } from '../src/clash/config/render.ts';
import { createEntryReader, type EntryReader } from '../src/clash/mihomo/entry-reader.ts';
import { startThrowaway } from '../src/clash/mihomo/throwaway.ts';
import { vetContent } from '../src/clash/mihomo/vet.ts';
import { parseContent } from '../src/clash/subscription/content.ts';
import { ClashError, nameOf } from '../src/clash/subscription/document.ts';
import { parseConfig } from '../src/config/load.ts';
import { fieldsOf, itemsOf } from '../src/io/untrusted.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { toolPath } from './tools/tools.ts';

/** A subscription's body, and a description. */
type Example = [kind: string, what: string, body: string | Buffer];

const UUID = '3f1c2b4a-5d6e-4f70-8a91-b2c3d4e5f607';
const KEY = Buffer.alloc(32, 7).toString('base64url');
const base64 = (text: string) => Buffer.from(text).toString('base64');
const json = (value: unknown) => JSON.stringify(value);
const ss = (name: string, { cipher = 'aes-128-gcm', more = '' } = {}) =>
  `ss://${base64(`${cipher}:harbour`)}@pier.example:8443${more}#${name}`;
const vmess = (fields: Record<string, unknown>) =>
  `vmess://${base64(json({ v: '2', ps: 'quay', add: 'quay.example', port: '443', id: UUID, aid: '0', net: 'tcp', type: 'none', tls: '', ...fields }))}`;
const ssr = (name: string) =>
  `ssr://${base64(`slip.example:8443:origin:aes-128-cfb:plain:${base64('harbour')}/?remarks=${Buffer.from(name).toString('base64url')}`)}`;
const node = (name: unknown, more: object = {}) => ({
  name,
  type: 'ss',
  server: 'dock.example',
  port: 8388,
  cipher: 'aes-128-gcm',
  password: 'harbour',
  ...more,
});
const FIELDS = 'type: ss, server: dock.example, port: 8388, cipher: aes-128-gcm, password: harbour';
const document = (...nodes: unknown[]) => json({ proxies: nodes });

const DIALECT: Record<string, string> = {
  'a usual document': `port: 7890\nmode: rule\nproxies:\n  - {name: mole, ${FIELDS}}\n  - {name: jetty, ${FIELDS}}\nrules:\n  - MATCH,DIRECT\n`,
  'a block list': 'proxies:\n  - name: mole\n    type: trojan\n    server: dock.example\n    port: 443\n    password: "harbour"\n',
  'brackets at column 0': `proxies: [\n{name: mole, ${FIELDS}},\n{name: jetty, ${FIELDS}}\n]\n`,
  'a brace that closes at column 0': `proxies:\n  - {name: mole, ${FIELDS}\n}\n`,
  'a flow map that goes on further left': `proxies:\n      - {name: mole,\n  ${FIELDS}}\n`,
  'a comment right behind a brace': `proxies:\n- {name: mole, ${FIELDS}}# the first\n- {name: jetty, ${FIELDS}}#the second\n`,
  'a comment behind a bracket': `proxies: [{name: mole, ${FIELDS}}]#all\n`,
  'a --- at the end': `proxies:\n- {name: mole, ${FIELDS}}\n---\n`,
  'a second document': `proxies:\n- {name: mole, ${FIELDS}}\n---\nproxies: [{name: other}]\n`,
  'a --- before, and ... behind': `---\nproxies:\n- {name: mole, ${FIELDS}}\n...\n`,
  'a %YAML directive': `%YAML 1.1\n---\nproxies:\n- {name: mole, ${FIELDS}}\n`,
  'a repeated key elsewhere': `hosts:\n  a.example: 1.1.1.1\n  a.example: 2.2.2.2\nproxies:\n- {name: mole, ${FIELDS}}\n`,
  'a repeated key in a node': `proxies:\n- {name: mole, ${FIELDS}, udp: true, udp: false}\n`,
  'anchors and merges': `base: &base {${FIELDS}}\nproxies:\n- {<<: *base, name: mole}\n- <<: [*base, {udp: true}]\n  name: jetty\n`,
  'no space behind commas': `proxies:\n- {name: mole,${FIELDS.replaceAll(', ', ',')}}\n`,
  'keys in quotes without a space': `proxies: [{"name":"mole",${FIELDS.replaceAll(/(\w+): ([\w.-]+)/g, '"$1":"$2"')
    .replaceAll(', ', ',')
    .replace('"8388"', '8388')}}]`,
  'tabs between tokens': `proxies:\n-\t{name:\tmole,\t${FIELDS}}\n`,
  'Windows line ends': `proxies:\r\n- {name: mole, ${FIELDS}}\r\n- {name: jetty, ${FIELDS}}\r\n`,
  'a byte order mark': `\uFEFFproxies:\n- {name: mole, ${FIELDS}}\n`,
  'complex keys': `proxies:\n- ? name\n  : mole\n  ? type\n  : trojan\n  server: dock.example\n  port: 443\n  password: harbour\n`,
  'folded and literal text':
    'proxies:\n- name: >-\n    mole\n    head\n  type: trojan\n  server: dock.example\n  port: 443\n  password: |-\n    harbour\n',
  JSON: document(node('mole'), node('jetty')),
  'a document cut off': `proxies:\n- {name: mole, ${FIELDS}}\n- {name: jetty, type: s`,
};

const SCALARS: Record<string, string> = {
  'a password of 17 digits': document(node('mole')).replace('"harbour"', '20310405060708091'),
  'a password of 20 digits': document(node('mole')).replace('"harbour"', '98765432109876543210'),
  'an octal password': document(node('mole')).replace('"harbour"', '0755'),
  'a hexadecimal password': document(node('mole')).replace('"harbour"', '0xC0FFEE'),
  'a name of digits': document(node(42), node('mole')),
  'a name that is a fraction': document(node(2.5), node('mole')),
  'a name that is a date': `proxies:\n- {name: 2031-04-05, ${FIELDS}}\n- {name: mole, ${FIELDS}}\n`,
  'a name that is a word of YAML': `proxies:\n- {name: yes, ${FIELDS}}\n- {name: "null", ${FIELDS}}\n`,
  'a name that is true': `proxies:\n- {name: true, ${FIELDS}}\n- {name: mole, ${FIELDS}}\n`,
  'a DEL in a name': `proxies:\n- {name: "mo\\x7Fle", ${FIELDS}}\n`,
  'a NEL and a line separator in a name': `proxies:\n- {name: "mo\\Nle\\Lend", ${FIELDS}}\n`,
  'emoji, and escapes of them': `proxies:\n- {name: "🛳 港口 01", ${FIELDS}}\n- {name: "\\U0001F6A2 02", ${FIELDS}}\n`,
  '!!binary and !!str': `proxies:\n- {name: !!binary "${base64('mole')}", ${FIELDS}}\n- {name: !!str 8, ${FIELDS}}\n`,
  'a tag of the provider': `proxies:\n- {name: !<str> 0123, ${FIELDS}}\n`,
  'a port that is text': document(node('mole', { port: '8388' })),
  'quotes in a name': `proxies:\n- {name: 'it''s a "pier"', ${FIELDS}}\n`,
};

const LINKS: Record<string, string> = {
  ss: ss('mole'),
  'ss of the older form': `ss://${base64('aes-128-gcm:harbours@pier.example:8443').replaceAll('=', '')}#mole`,
  'ss of the older form, padded': `ss://${base64('aes-128-gcm:harbour@pier.example:8443')}#mole`,
  'SS in capitals': ss('mole').replace('ss:', 'SS:'),
  'ss with obfs': ss('mole', { more: '/?plugin=obfs-local%3Bobfs%3Dtls%3Bobfs-host%3Dcover.example' }),
  'ss with v2ray-plugin': ss('mole', { more: '/?plugin=v2ray-plugin%3Bmode%3Dwebsocket%3Btls%3Bhost%3Dcover.example' }),
  ssr: ssr('slip 泊位'),
  vmess: vmess({}),
  'vmess over websocket': vmess({ net: 'ws', path: '/w?ed=2048', host: 'cover.example', tls: 'tls' }),
  'vmess as a URL': `vmess://${UUID}@quay.example:443?type=ws&path=%2Fw&security=tls#quay`,
  'vless with REALITY': `vless://${UUID}@quay.example:443?security=reality&pbk=${KEY}&sid=ab12&type=tcp&flow=xtls-rprx-vision#quay`,
  'vless over grpc': `vless://${UUID}@quay.example:443?security=tls&type=grpc&serviceName=g#quay`,
  trojan: 'trojan://harbour@quay.example:443?sni=cover.example#quay%2001',
  hysteria: 'hysteria://quay.example:443?auth=harbour&peer=cover.example&upmbps=10&downmbps=50#quay',
  hysteria2: 'hysteria2://harbour@quay.example:443?sni=cover.example#quay',
  hy2: 'hy2://harbour@quay.example:443#quay',
  tuic: `tuic://${UUID}:harbour@quay.example:443?congestion_control=bbr#quay`,
  anytls: 'anytls://harbour@quay.example:443#quay',
  mieru: 'mierus://sailor:harbour@quay.example?port=6666&port=6667&protocol=TCP&protocol=TCP&profile=quay',
  socks5: `socks5://${base64('sailor:harbour')}@quay.example:1080#quay`,
  http: 'http://sailor:harbour@quay.example:8080#quay',
};

const LISTS: Record<string, string | Buffer> = {
  plain: `${ss('mole')}\n${ss('jetty')}\n`,
  'in base64': base64(`${ss('mole')}\n${ss('jetty')}\n`),
  'in base64 of 76 columns': base64(`${ss('mole')}\n${ss('jetty')}\n${vmess({})}\n`).replaceAll(/(.{76})/g, '$1\n'),
  'in URL-safe base64': Buffer.from(`${ss('mole~~~')}\n${ss('jetty???')}\n`).toString('base64url'),
  'with Windows line ends': `${ss('mole')}\r\n${ss('jetty')}\r\n`,
  'with blanks, blank lines and comments': `\n# ours\n  \n${ss('mole')}  \n\n// more\n${ss('jetty')}\n`,
  'with STATUS and REMARKS': `STATUS=🚀 3 GB of 9 GB\nREMARKS=Harbour\n${ss('mole')}\n`,
  'with one name twice': `${ss('mole')}\n${ss('mole')}\n${ss('mole')}\n`,
  'without names': `${ss('')}\n${ss('jetty')}\n`,
  'of several kinds': [ss('mole'), ssr('slip'), vmess({}), 'trojan://harbour@quay.example:443#t'].join('\n'),
  'in UTF-16': Buffer.from(`\uFEFFproxies:\n- {name: 港口, ${FIELDS}}\n`, 'utf16le'),
  'with the state of the account among them': `${ss(encodeURIComponent('剩余流量：3 GB'))}\n${ss(encodeURIComponent('Expire: 2031-04-05'))}\n${ss('mole')}`,
};

const BAD_LINKS: Record<string, string> = {
  'a cipher that mihomo has not': ss('odd', { cipher: 'rc4-40' }),
  'v2ray-plugin without its mode': ss('odd', { more: '/?plugin=v2ray-plugin%3Btls%3Bhost%3Dcover.example' }),
  'ss in ss': `ss://${base64(`ss://${base64('aes-128-gcm:x')}`)}@pier.example:1#odd`,
  'a bad REALITY key': `vless://${UUID}@quay.example:443?security=reality&pbk=short&sid=ab&type=tcp#odd`,
  'a flow that is gone': `vless://${UUID}@quay.example:443?security=tls&type=tcp&flow=xtls-rprx-direct#odd`,
  'hysteria without speeds': 'hysteria://quay.example:443?auth=x#odd',
  'no port': `vless://${UUID}@quay.example?type=tcp#odd`,
  juicity: `juicity://${UUID}:harbour@quay.example:443#odd`,
  wireguard: `wireguard://${KEY}@quay.example:51820?publickey=${KEY}&address=10.0.0.2%2F32#odd`,
  snell: 'snell://harbour@quay.example:443?version=4#odd',
  'half a link': 'vmess://eyJwcyI6',
  'a host that is a number in JSON': vmess({ net: 'ws', host: 7, path: 8 }),
};

const BAD_NODES: Record<string, object> = {
  'a cipher that mihomo has not': node('odd', { cipher: 'rc4-40' }),
  'an unknown type': { name: 'odd', type: 'ferry', server: 'dock.example', port: 1 },
  'no port': { ...node('odd'), port: undefined },
  'a port beyond all': node('odd', { port: 'many' }),
  'an unknown plugin mode': node('odd', { plugin: 'obfs', 'plugin-opts': { mode: 'sail' } }),
  'a map for a password': node('odd', { password: { a: 1 } }),
  'no name': { ...node('odd'), name: undefined },
  'a way out that is direct': { name: 'odd', type: 'direct' },
  'a chain to nothing': node('odd', { 'dialer-proxy': 'nothing' }),
};

const FORMS: Record<string, string | Buffer> = {
  SIP008: json({
    version: 1,
    servers: [{ remarks: 'mole', server: 'dock.example', server_port: 8388, password: 'harbour', method: 'aes-128-gcm' }],
  }),
  'sing-box': json({ outbounds: [{ type: 'trojan', tag: 'mole', server: 'dock.example', server_port: 443, password: 'harbour' }] }),
  Xray: json({ outbounds: [{ protocol: 'vmess', settings: {}, tag: 'mole' }] }),
  Surge: '[General]\nipv6 = false\n[Proxy]\nmole = ss, dock.example, 8388, encrypt-method=aes-128-gcm, password=harbour\n',
  'a web page': '<!DOCTYPE html><html><head><title>Harbour</title></head></html>',
  'a message': 'the token has expired',
  'JSON of an error': '{"status": "fail", "message": "expired"}',
  nothing: '',
  'Clash YAML in base64': base64(DIALECT['a usual document'] ?? ''),
  'only providers': json({ 'proxy-providers': { p: { type: 'http', url: 'https://pier.example/list' } } }),
};

const good = [node('mole'), node('jetty')];
const examples = (kind: string, bodies: Record<string, string | Buffer>) =>
  Object.entries(bodies).map(([what, body]): Example => [kind, what, body]);
const CORPUS: Example[] = [
  ...examples('YAML dialect', DIALECT),
  ...examples('scalars', SCALARS),
  ...examples('one link', LINKS),
  ...examples('lists', LISTS),
  ...examples(
    'a bad link',
    Object.fromEntries(Object.entries(BAD_LINKS).map(([what, link]) => [what, base64(`${ss('mole')}\n${link}\n${ss('jetty')}`)])),
  ),
  ...examples('a bad node', Object.fromEntries(Object.entries(BAD_NODES).map(([what, odd]) => [what, document(good[0], odd, good[1])]))),
  ...examples('other forms', FORMS),
];

/** Names of the nodes that mihomo finds in a file of a proxy-provider. */
type ReadFile = (body: string | Uint8Array) => Promise<string[]>;

interface Reading {
  names: string[];
  /** Notes, or why there is no node. */
  notes: readonly string[];
}

/** The config that this program generates from a subscription in mode nodes, read by mihomo. */
async function readHere(body: string | Buffer, { reader, readFile }: { reader: EntryReader; readFile: ReadFile }): Promise<Reading> {
  try {
    const content = await vetContent(await parseContent(Buffer.from(body)), reader);
    const { clash: own } = parseConfig({ clash: { subscriptions: [{ name: 'harbour', url: 'https://harbour.example' }] } });
    const inputs = {
      subscriptions: new Map([['harbour', content]]),
      users: [],
      resources: new Map<string, string>(),
      banned: new Set<string>(),
    };
    const { config, files, notes } = render(inputs, { own, secret: 's' });
    const provider = fieldsOf(fieldsOf(config['proxy-providers'])['subscription harbour']);
    const payload = itemsOf(provider['payload']);
    const file = payload.length > 0 ? encodeConfig({ proxies: payload }) : ([...files.values()][0] ?? '');
    const names = file === '' ? [] : await readFile(file);
    if (payload.length > 0) assert.deepEqual(names, payload.map(nameOf), 'mihomo reads all that is left');
    return { names, notes };
  } catch (error) {
    if (!(error instanceof ClashError)) throw error;
    return { names: [], notes: [error.message] };
  }
}

test('subscriptions of every kind yield the nodes that mihomo itself finds in them, or a note explains why not', async (t) => {
  await using directory = await temporaryDirectory();
  await using other = await temporaryDirectory();
  const options = { binary: await toolPath('mihomo'), directory: directory.path, env: {} };
  const provider = { 'proxy-providers': { p: { type: 'file', path: 'p' } }, rules: ['MATCH,REJECT'], 'log-level': 'error' };
  await using mihomo = await startThrowaway(provider, { ...options, started: /initial proxy provider p error/ });
  const readFile: ReadFile = async (body) => {
    await mihomo.write('p', body);
    if ((await mihomo.call('PUT', '/providers/proxies/p')).status >= 300) return [];
    const { text } = await mihomo.call('GET', '/providers/proxies/p');
    return itemsOf(fieldsOf(JSON.parse(text))['proxies']).map(nameOf);
  };
  const reader = createEntryReader({ ...options, directory: other.path });
  const table = new Map<string, Record<'same' | 'more' | 'noted' | 'refused', number>>();
  const unexplained: string[] = [];
  for (const [kind, what, body] of CORPUS) {
    const theirs = await readFile(body);
    const { names, notes } = await readHere(body, { reader, readFile });
    const counts = table.get(kind) ?? { same: 0, more: 0, noted: 0, refused: 0 };
    table.set(kind, counts);
    const missing = theirs.filter((name) => !names.includes(name));
    if (names.length === 0) counts.refused++;
    else if (missing.length > 0) counts.noted++;
    else if (names.length === theirs.length) counts.same++;
    else counts.more++;
    const told = notes.some((note) => note.length > 10);
    if ((missing.length > 0 || names.length === 0) && !told) unexplained.push(`${kind}, ${what}: ${missing.join(', ')}`);
    if (names.length === 0 && theirs.length > 0)
      unexplained.push(`${kind}, ${what}: refused, though mihomo finds ${theirs.join(', ')}: ${notes.join('; ')}`);
    // A link or node that mihomo cannot use takes nothing along.
    if (kind.startsWith('a bad') && !(names.includes('mole') && names.includes('jetty')))
      unexplained.push(`${kind}, ${what}: ${notes.join('; ')}`);
    if (kind.startsWith('a bad') && names.length === 2 && !told) unexplained.push(`${kind}, ${what}: no note`);
  }
  const rows = [...table].map(([kind, { same, more, noted, refused }]) => [kind, same, more, noted, refused].map(String));
  for (const row of [['of ' + CORPUS.length, 'same', 'more', 'noted', 'refused'], ...rows])
    t.diagnostic(row.map((cell) => cell.padEnd(14)).join(''));
  assert.ok(CORPUS.length >= 80);
  assert.deepEqual(unexplained, []);
});
