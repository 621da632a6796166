import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOtherHosts } from './other-hosts.ts';

test('a host is converted to a path component and back', () => {
  const hosts = createOtherHosts(['mcr.microsoft.com', '*-docker.pkg.dev', 'registry.example.com:5000', 'localhost:5001']);
  const cases = [
    ['mcr.microsoft.com', 'mcr.microsoft.com'],
    ['europe-west1-docker.pkg.dev', 'europe-west1-docker.pkg.dev'],
    ['registry.example.com:5000', 'registry.example.com_5000'],
    ['localhost:5001', 'localhost_5001'],
  ] as const;
  for (const [host, segment] of cases) {
    assert.equal(hosts.segmentOf(host), segment, host);
    assert.equal(hosts.hostOf(segment), host, segment);
  }
});

test('hosts that are not listed, are excluded, or are no hosts are not served', () => {
  const hosts = createOtherHosts(['*', '!registry.example.com', '!*.internal.example.com', '10.0.0.1']);
  assert.equal(hosts.segmentOf('quay.example.org'), 'quay.example.org');
  const refused = [
    'registry.example.com',
    'Quay.example.org',
    'a.internal.example.com',
    '192.168.0.1',
    '203.0.113.7:5000',
    '[::1]:5000',
    'localhost',
    'registry:5000',
    'a_b.example.com',
    'example.com.',
    '.example.com',
    'example..com',
    'example.com:0',
    'example.com:99999',
    'example.com:05000',
    `${'a'.repeat(64)}.com`,
    `${'a.'.repeat(150)}com`,
  ];
  for (const host of refused) assert.equal(hosts.segmentOf(host), undefined, host);
  for (const segment of ['library', 'nginx', 'example.com_0', 'example.com_99999', 'a__b.com', 'dockerhub'])
    assert.equal(hosts.hostOf(segment), undefined, segment);
  assert.equal(hosts.segmentOf('10.0.0.1:80'), undefined, 'only what is named may be an address');
  assert.equal(hosts.segmentOf('xn--fiqs8s.example.org'), 'xn--fiqs8s.example.org', 'punycode is a name like any other');
});

test('only a name without a glob may be internal', () => {
  const hosts = createOtherHosts(['registry.corp.example', '*.public.example']);
  assert.ok(hosts.isNamed('registry.corp.example'));
  assert.ok(!hosts.isNamed('a.public.example'));
  assert.deepEqual(hosts.names, ['registry.corp.example']);
  assert.ok(!hosts.everything);
  assert.ok(createOtherHosts(['*']).everything);
});
