import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { createAuthority, isDue, isLeafOf, isPair, issueLeaf, mergeBundles } from './certificates.ts';

const NAMES = ['webhook.ns.svc', 'webhook.ns.svc.cluster.local'];
const DAY = 24 * 3_600_000;

test('an authority for ten years certifies a server for one, for its names alone', async () => {
  const [authority, other] = await Promise.all([createAuthority(), createAuthority()]);
  const leaf = await issueLeaf(authority, NAMES);
  assert.ok(isLeafOf(leaf, authority, NAMES));
  assert.ok(!isLeafOf(leaf, other, NAMES));
  assert.ok(!isLeafOf(leaf, authority, ['other.ns.svc']));
  assert.ok(!isLeafOf({ ...leaf, key: authority.key }, authority, NAMES));
  assert.ok(!isLeafOf({ cert: '', key: '' }, authority, NAMES));
  const days = (pem: string): number => Math.round((new X509Certificate(pem).validToDate.getTime() - Date.now()) / DAY);
  assert.deepEqual([days(authority.cert), days(leaf.cert)], [3650, 365]);
});

test('a certificate is due after two thirds of its life, or when it is none', async () => {
  const { cert } = await createAuthority();
  assert.ok(!isDue(cert));
  assert.ok(!isDue(cert, Date.now() + 2400 * DAY));
  assert.ok(isDue(cert, Date.now() + 2440 * DAY));
  assert.ok(isDue(''));
  assert.ok(!isPair({ cert, key: 'no key' }));
});

test('promise W8: CA bundles are merged in order, each certificate once, and anything else is dropped', async () => {
  const [one, two] = await Promise.all([createAuthority(), createAuthority()]);
  assert.equal(mergeBundles([one.cert, `garbage\n${two.cert}\n${one.cert}`, ''], 3).match(/BEGIN/g)?.length, 2);
  assert.equal(mergeBundles([one.cert, two.cert], 1).trim(), one.cert.trim());
});
