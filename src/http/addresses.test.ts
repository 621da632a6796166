import assert from 'node:assert/strict';
import type { LookupAddress } from 'node:dns';
import { test } from 'node:test';
import { isOciError } from '../oci/error.ts';
import { isInternal, lookupExternal, resolvesInside } from './addresses.ts';

const INTERNAL = [
  '127.0.0.1',
  '10.96.0.1',
  '172.31.255.255',
  '192.168.1.1',
  '100.64.0.1',
  '169.254.169.254',
  '0.0.0.0',
  '[::1]',
  '[::]',
  '[fd00::1]',
  '[fe80::1]',
  '[::ffff:10.0.0.1]',
  '[64:ff9b::10.0.0.1]',
  'localhost',
  'localhost.',
  'a.localhost',
];
// 198.18.0.1 is what clash answers to DNS.
const EXTERNAL = [
  '198.18.0.1',
  '1.1.1.1',
  '172.32.0.1',
  '[2606:4700::1111]',
  '[64:ff9b::1.1.1.1]',
  'registry-1.docker.io',
  'localhost.example',
];

test('internal addresses are known in every form that a URL may have', () => {
  for (const host of INTERNAL) assert.equal(isInternal(host), true, host);
  for (const host of EXTERNAL) assert.equal(isInternal(host), false, host);
});

test('an upstream is inside when its name means so, and nowhere when its name means nothing', async () => {
  assert.equal(await resolvesInside('10.0.0.1'), true);
  assert.equal(await resolvesInside('1.1.1.1'), false);
  assert.equal(await resolvesInside('there-is-no-such-name.invalid'), false);
});

test('a name that leads inside does not resolve for redirects', async () => {
  const find = (host: string) =>
    new Promise<LookupAddress[]>((resolve, reject) =>
      lookupExternal(host, { all: true }, (error, found) => (error === null ? resolve(found as LookupAddress[]) : reject(error))),
    );
  await assert.rejects(find('localhost'), (error) => isOciError(error, 'DENIED'));
  assert.deepEqual(await find('1.1.1.1'), [{ address: '1.1.1.1', family: 4 }]);
});
