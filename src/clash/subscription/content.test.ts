import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseContent, type Content } from './content.ts';
import { ClashError } from './document.ts';
import { parseUserInfo } from './userinfo.ts';

const NODE = '{name: a, type: ss, server: a.example, port: 1, cipher: aes-128-gcm, password: x}';
const URIS = 'ss://YWVzLTEyOC1nY206cHc@127.0.0.1:1#one\r\n# a remark\r\ntrojan://pw@b.example:443#two\n\n';
const base64 = (text: string, width = Infinity) =>
  Buffer.from(text)
    .toString('base64')
    .replace(new RegExp(`(.{${Math.min(width, 65_000)}})`, 'g'), '$1\n');
const read = async (text: string | Buffer): Promise<Content> => parseContent(Buffer.from(text));

/** A document that is small, and huge when its aliases are followed. */
const BOMB = [
  'a: &a [x, x, x, x, x, x, x, x, x]',
  ...Array.from('bcdefghij').map((letter, n) => `${letter}: &${letter} [${Array(9).fill(`*${'abcdefghi'[n]}`).join(', ')}]`),
].join('\n');

test('Clash YAML and lists of URIs, plain and in base64, are recognised', async () => {
  const yaml = await read(
    `port: 1\nx: &x {udp: true}\nproxies:\n  - {<<: *x, name: a, type: ss, server: s, port: 1, password: !<str> 0123}\n`,
  );
  assert.deepEqual(yaml, {
    kind: 'clash',
    notes: [],
    document: { port: 1, x: { udp: true }, proxies: [{ udp: true, name: 'a', type: 'ss', server: 's', port: 1, password: '0123' }] },
  });
  const uris = 'ss://YWVzLTEyOC1nY206cHc@127.0.0.1:1#one\ntrojan://pw@b.example:443#two';
  for (const text of [URIS, base64(URIS), base64(URIS, 76), base64(URIS).replaceAll('+', '-').replaceAll('/', '_')]) {
    assert.deepEqual(await read(text), { kind: 'uris', text: uris, notes: [] });
  }
  for (const scheme of ['ss', 'ssr', 'vmess', 'vless', 'trojan', 'hysteria', 'hysteria2', 'hy2', 'tuic']) {
    assert.equal((await read(base64(`${scheme}://something`))).kind, 'uris', scheme);
  }
  assert.equal((await read(`﻿proxies: [${NODE}]`)).kind, 'clash', 'with a byte order mark');
  assert.equal((await read(Buffer.from(`\uFEFFproxies: [${NODE}]`, 'utf16le'))).kind, 'clash', 'in UTF-16');
  assert.equal((await read(base64(`proxies: [${NODE}]`))).kind, 'clash', 'in base64');
  assert.equal((await read('proxy-providers: {p: {type: http, url: https://p.example}}')).kind, 'clash');
});

const WRONG: [string, string | Buffer, RegExp][] = [
  ['nothing', ' \n', /it is empty/],
  ['a web page', '<!DOCTYPE html><title>login</title>', /web page/],
  ['text', 'please log in', /neither Clash YAML nor a list of share links/],
  ['base64 of text', base64('please log in'), /neither Clash YAML nor a list of share links/],
  ['JSON of something else', '{"error": "expired"}', /no node/],
  ['a list', '- a\n- b', /neither Clash YAML nor a list of share links/],
  ['a document cut off', `proxies:\n  - ${NODE}\n  - {name: b, type: ss, ser`, /not valid YAML \(line 3/],
  ['invalid YAML', 'proxies: [a\nb: }', /not valid YAML/],
  ['a bomb of aliases', `${BOMB}\nproxies: [${NODE}]`, /expands? too far/],
  ['a bomb of depth', `proxies: ${'['.repeat(100_000)}`, /not valid YAML|expands? too far/],
  ['no nodes', 'proxies: []\nrules: ["MATCH,DIRECT"]', /no node/],
  ['nodes of no kind', 'proxies: [a, 1, {name: x}, {type: ss}]', /no node/],
  ['binary', Buffer.from([0, 255, 254, 1, 2, 3]), /neither|not valid YAML/],
];

for (const [what, text, expected] of WRONG) {
  test(`a subscription that is ${what} is refused, and its content is in no message`, async () => {
    await assert.rejects(read(text), (error: unknown) => {
      assert.ok(error instanceof ClashError);
      assert.match(error.message, expected);
      assert.doesNotMatch(error.message, /example|please|login/);
      return true;
    });
  });
}

const OTHER_FORMS: [string, string, RegExp][] = [
  ['a sing-box config', '{"outbounds": [{"type": "shadowsocks", "tag": "a", "server": "s", "server_port": 1}]}', /config of sing-box/],
  ['an Xray config', '{"outbounds": [{"protocol": "vmess", "tag": "a", "settings": {}}]}', /config of Xray/],
  ['a Surge config', '[General]\nloglevel = notify\n[Proxy]\nHK = ss, 1.2.3.4, 443', /config of Surge/],
  [
    'only the state of the account',
    `proxies: [${NODE.replace('name: a', "name: '剩余流量：1 GB'")}]`,
    /no node; the provider says: 剩余流量：1 GB/,
  ],
  ['a list of only that', base64('trojan://pw@b.example:443#Expire%3A%202030-01-01\nSTATUS=1 GB'), /the provider says: Expire: 2030-01-01/],
];

for (const [what, text, expected] of OTHER_FORMS) {
  test(`a subscription that is ${what} is refused with its format in the message`, async () => {
    await assert.rejects(read(text), (error: unknown) => error instanceof ClashError && expected.test(error.message));
  });
}

test('SIP008 is read', async () => {
  const server = { remarks: 'HK', server: 's.example', server_port: 8388, password: 'pw', method: 'aes-128-gcm' };
  const plugin = { ...server, remarks: 7, plugin: 'obfs-local', plugin_opts: 'obfs=tls;obfs-host=h.example' };
  const { kind, document } = (await read(JSON.stringify({ version: 1, servers: [server, plugin] }))) as Extract<Content, { kind: 'clash' }>;
  const node = { type: 'ss', server: 's.example', port: 8388, cipher: 'aes-128-gcm', password: 'pw', udp: true };
  assert.equal(kind, 'clash');
  assert.deepEqual(document['proxies'], [
    { name: 'HK', ...node },
    { name: '7', ...node, plugin: 'obfs', 'plugin-opts': { mode: 'tls', host: 'h.example' } },
  ]);
});

test('lines between nodes that are not nodes become notes', async () => {
  const list = await read(`STATUS=1 GB of 2 GB\nREMARKS=Sky\nSS://YWVzLTEyOC1nY206cHc@127.0.0.1:1#one\nhello\n${URIS}`);
  assert.deepEqual(list.notes, [
    'the provider says: STATUS=1 GB of 2 GB',
    'the provider says: REMARKS=Sky',
    '1 of its lines are no links: 4',
  ]);
  const twice = await read(`proxies:\n- {name: 套餐到期：2030-01-01, type: ss}\n- {name: a,\n  name: 剩余路线 7, type: ss}`);
  assert.deepEqual(twice.notes, [
    'duplicate keys in one map, of which the last one is used: lines 4',
    'the provider says: 套餐到期：2030-01-01',
  ]);
  assert.equal(twice.kind === 'clash' && (twice.document['proxies'] as unknown[]).length, 1);
});

test("a provider's account information is read, even if parts are missing", () => {
  assert.deepEqual(parseUserInfo('upload=1; download=2; total=100; expire=1900000000'), {
    used: 3,
    total: 100,
    left: 97,
    expires: '2030-03-17T17:46:40.000Z',
  });
  assert.deepEqual(parseUserInfo('download=7;total=5'), { used: 7, total: 5, left: 0 });
  for (const expire of [
    '1900000000000',
    '2030-03-17 17:46:40',
    '2030/3/17 17:46:40',
    '2030-03-17T17:46:40Z',
    '2030-03-18T01:46:40+08:00',
  ]) {
    assert.equal(parseUserInfo(`total=1; expire=${expire}`).expires, '2030-03-17T17:46:40.000Z', expire);
  }
  assert.equal(parseUserInfo('expire=2030-03-17; total=1').expires, '2030-03-17T00:00:00.000Z');
  assert.deepEqual(parseUserInfo('total=1.5e+12; expire=0'), { total: 1.5e12, left: 1.5e12 });
  for (const nonsense of ['', 'expire=99999999999999999999', 'total=abc', '<html>']) assert.deepEqual(parseUserInfo(nonsense), {});
});
