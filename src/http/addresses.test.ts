import assert from 'node:assert/strict';
import type { LookupAddress } from 'node:dns';
import { test } from 'node:test';
import fc from 'fast-check';
import { isOciError } from '../oci/error.ts';
import { isInternal, lookupExternal, resolvesInside } from './addresses.ts';

const INTERNAL = [
  '127.0.0.1',
  '10.96.0.1',
  '172.31.255.255',
  '192.168.1.1',
  '100.64.0.1',
  '100.100.100.200', // Alibaba Cloud's metadata service
  '169.254.169.254', // that of AWS, Google Cloud, Azure and others
  '168.63.129.16', // Azure's wire server
  '192.0.0.192', // Oracle Cloud's metadata service
  '0.0.0.0',
  '224.0.0.1',
  '255.255.255.255',
  // The same in the other forms that inet_aton(3) and URLs accept.
  '2130706433',
  '127.1',
  '0x7f.1',
  '0x7f000001',
  '0177.0.0.1',
  '0251.0376.0251.0376',
  '127.0.0.1.',
  '１２７.０.０.１',
  '[::1]',
  '[::]',
  '::1',
  '[fd00::1]',
  '[fe80::1]',
  'fe80::1%eth0',
  '[fec0::1]',
  '[ff02::1]',
  '[::ffff:10.0.0.1]',
  '[::ffff:a00:1]',
  '[::10.0.0.1]',
  '[::ffff:0:10.0.0.1]',
  '[64:ff9b::10.0.0.1]',
  '[64:ff9b::a9fe:a9fe]',
  '[64:ff9b:1::1]',
  '[2002:a00:1::]', // 6to4 of 10.0.0.1
  '[2001:0:a00:1::]', // Teredo by the server 10.0.0.1
  '[2001:0:808:808:0:0:f5ff:fffe]', // Teredo's client 10.0.0.1
  '[2606:4700::5efe:a00:1]', // ISATAP of 10.0.0.1
  'localhost',
  'localhost.',
  'LOCALHOST',
  'a.localhost',
  'metadata.google.internal',
  'kubernetes.default.svc',
  'kubernetes.default.svc.cluster.local',
  'kubernetes',
  'not a host',
  '',
];
// clash answers DNS queries with 198.18.0.1.
const EXTERNAL = [
  '198.18.0.1',
  '198.19.255.255',
  '1.1.1.1',
  '16843009', // 1.1.1.1
  '172.32.0.1',
  '223.255.255.255',
  '[2606:4700::1111]',
  '[64:ff9b::1.1.1.1]',
  '[::ffff:1.1.1.1]',
  '[2002:101:101::]',
  'registry-1.docker.io',
  'localhost.example',
  'internal.example.com',
];

test('promise 12: internal addresses are recognised in every form that a URL may have', () => {
  for (const host of INTERNAL) assert.equal(isInternal(host), true, host);
  for (const host of EXTERNAL) assert.equal(isInternal(host), false, host);
});

test('promise 12: an IPv4 address is judged alike in all its spellings, and inside every IPv6 form that leads to it', () => {
  fc.assert(
    fc.property(fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.nat(255)), (bytes) => {
      const dotted = bytes.join('.');
      const expected = isInternal(dotted);
      const number = bytes.reduce((sum, byte) => sum * 256 + byte, 0);
      const [high, low] = [Math.floor(number / 65536), number % 65536].map((half) => half.toString(16));
      const forms = [
        String(number),
        `0x${number.toString(16)}`,
        `0${number.toString(8)}`,
        bytes.map((byte) => `0${byte.toString(8)}`).join('.'),
      ];
      const wrapped = [
        `::ffff:${dotted}`,
        `::ffff:${high}:${low}`,
        `64:ff9b::${dotted}`,
        `2002:${high}:${low}::1`,
        `2606:4700::5efe:${dotted}`,
      ];
      for (const form of [...forms, ...wrapped]) assert.equal(isInternal(form), expected, `${form} for ${dotted}`);
    }),
  );
});

test('an upstream is inside when its name means so, and nowhere when its name means nothing', async () => {
  assert.equal(await resolvesInside('10.0.0.1'), true);
  assert.equal(await resolvesInside('1.1.1.1'), false);
  assert.equal(await resolvesInside('there-is-no-such-name.invalid'), false);
});

test('promise 12: a name that leads inside does not resolve for redirects', async () => {
  const find = (host: string) =>
    new Promise<LookupAddress[]>((resolve, reject) =>
      lookupExternal(host, { all: true }, (error, found) => (error === null ? resolve(found as LookupAddress[]) : reject(error))),
    );
  await assert.rejects(find('localhost'), (error) => isOciError(error, 'DENIED'));
  assert.deepEqual(await find('1.1.1.1'), [{ address: '1.1.1.1', family: 4 }]);
});
