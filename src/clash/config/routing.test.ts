import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeUnproxied, firstLookup } from './routing.ts';

const from = (rules: string[]) => rules.map((value, index) => ({ value, origin: `subscription air, rules[${index}]`, own: false }));
const GROUPS = [
  { name: 'Proxy', type: 'select', proxies: ['Auto', 'DIRECT'] },
  { name: 'Auto', type: 'url-test', proxies: ['a', 'b'] },
  { name: 'China', type: 'select', proxies: ['DIRECT', 'Proxy'] },
  { name: 'Ads', type: 'select', proxies: ['REJECT'] },
  { name: 'Nested', type: 'fallback', proxies: ['China', 'Ads'] },
  { name: 'Far', type: 'url-test', use: ['p'] },
];

test('hosts of pulls that rules send past all nodes are reported with the rule', () => {
  const told = (...rules: string[]) => describeUnproxied({ rules: from(rules), groups: GROUPS });
  assert.deepEqual(told('MATCH,Proxy'), []);
  assert.deepEqual(told('MATCH,Far'), []);
  assert.deepEqual(told('DOMAIN-SUFFIX,docker.io,a', 'GEOIP,CN,DIRECT', 'MATCH,Auto'), []);
  const [cdn, ...others] = told('DOMAIN-SUFFIX,cloudflare.docker.com,China', 'MATCH,Proxy');
  assert.match(
    cdn ?? '',
    /^no node is used for production\.cloudflare\.docker\.com: subscription air, rules\[0\], "DOMAIN-SUFFIX,cloudflare/,
  );
  assert.deepEqual(others, []);
  assert.match(told('DOMAIN-KEYWORD,quay,Ads', 'DST-PORT,443,Proxy').join(), /quay\.io, cdn01\.quay\.io: .*rules\[0\]/);
  assert.match(
    told('DOMAIN,ghcr.io,Proxy', 'MATCH,Nested').join(),
    /registry-1\.docker\.io, .*pkg-containers\.githubusercontent\.com.*rules\[1\]/,
  );
});

test('rules for which addresses are looked up are found', () => {
  assert.equal(firstLookup(['DOMAIN,x,a', 'IP-CIDR,10.0.0.0/8,DIRECT,no-resolve', 'GEOIP,CN,DIRECT', 'MATCH,a']), 'GEOIP,CN,DIRECT');
  assert.equal(firstLookup(['IP-CIDR6,fc00::/7,DIRECT, no-resolve', 'MATCH,a']), undefined);
});
