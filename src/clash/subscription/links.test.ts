import assert from 'node:assert/strict';
import { test } from 'node:test';
import { linkAddress, linkName, repairLink } from './links.ts';

const base64 = (text: string) => Buffer.from(text).toString('base64');
const VMESS = `vmess://${base64(JSON.stringify({ ps: '香港 01', add: 'h.example', port: '443' }))}`;
const SSR = `ssr://${base64(`h.example:443:origin:aes-128-cfb:plain:${base64('pw')}/?remarks=${base64('香港 02')}&group=x`)}`;

const LINKS: [string, string, string | undefined, string | undefined][] = [
  [VMESS, '香港 01', 'h.example', '443'],
  [SSR, '香港 02', 'h.example', '443'],
  [`ss://${base64('aes-128-gcm:p@w@h.example:1')}#old%20one`, 'old one', 'h.example', '1'],
  [`ss://${base64('aes-128-gcm:pw')}@[::1]:2/?plugin=x#100%`, '100%', '::1', '2'],
  ['trojan://pw@h.example:443?sni=x#a:b@c:1', 'a:b@c:1', 'h.example', '443'],
  ['hysteria2://h.example?x=1', '', undefined, undefined],
];

for (const [link, name, server, port] of LINKS) {
  test(`the name and the address of a ${link.split(':', 1)[0]} link are found: ${name}`, () => {
    assert.equal(linkName(link), name);
    assert.deepEqual(linkAddress(link), server === undefined ? undefined : { server, port });
  });
}

test('links in base64 that mihomo does not read are repaired', () => {
  const old = `SS://${Buffer.from('aes-128-gcm:p@w@h.example:1').toString('base64').replace('=', '==')}#old`;
  assert.equal(repairLink(old), `ss://${Buffer.from('aes-128-gcm:p@w').toString('base64url')}@h.example:1#old`);
  assert.equal(repairLink('vmess://ab-_cQ=='), 'vmess://ab+/cQ');
  for (const link of ['ss://x@h.example:1#a', 'trojan://pw@h.example:443', 'ss://nonsense#a'])
    assert.equal(repairLink(link), undefined, link);
});
