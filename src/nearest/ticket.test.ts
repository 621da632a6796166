import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../oci/digest.ts';
import { readTicket, ticketUrl } from './ticket.ts';

const KEY = 'k'.repeat(43);
const CLAIMS = { digest: digestOf(Buffer.from('a blob')), address: '10.0.0.7:25002', size: 1234 };
const targetOf = (url: string): string => new URL(url).pathname + new URL(url).search;

test('a ticket is valid for one blob on one node until it expires', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  const target = targetOf(ticketUrl(CLAIMS, KEY, now));
  const { address } = CLAIMS;
  assert.deepEqual(readTicket(target, { address, key: KEY, now }), CLAIMS);
  assert.deepEqual(readTicket(target, { address, key: KEY, now: now + 299_000 }), CLAIMS);
  assert.equal(readTicket(target, { address, key: KEY, now: now + 301_000 }), undefined, 'expired');
  assert.equal(readTicket(target, { address, key: 'x'.repeat(43), now }), undefined, 'of another key');
  assert.equal(readTicket(target, { address: '10.0.0.8:25002', key: KEY, now }), undefined, 'for another node');
});
