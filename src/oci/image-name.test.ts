import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fullNames, parseImage, servedHosts, servedRepository } from './image-name.ts';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

test('an image name is split into host, repository and suffix as distribution/reference does', () => {
  const rows: [string, [host: string, repository: string, suffix: string] | undefined][] = [
    ['nginx', ['docker.io', 'library/nginx', '']],
    ['index.docker.io/nginx:1', ['index.docker.io', 'library/nginx', ':1']],
    [`ghcr.io/a/b:1@${DIGEST}`, ['ghcr.io', 'a/b', `:1@${DIGEST}`]],
    ['localhost/x', ['localhost', 'x', '']],
    ['MYHOST/x', ['MYHOST', 'x', '']],
    ['[2001:db8::1]:5000/x', ['[2001:db8::1]:5000', 'x', '']],
    [`nginx@md5:${'0'.repeat(32)}`, undefined],
    ['ab'.repeat(32), undefined],
    ['Nginx', undefined],
    ['', undefined],
  ];
  for (const [image, parts] of rows) {
    const parsed = parseImage(image);
    assert.deepEqual(parsed && [parsed.host, parsed.repository, parsed.suffix], parts, image);
  }
});

test('a glob may match the full name, with or without its tag', () => {
  assert.deepEqual(fullNames('index.docker.io/redis:7'), ['docker.io/library/redis', 'docker.io/library/redis:7']);
  assert.deepEqual(fullNames('ghcr.io/a/b'), ['ghcr.io/a/b']);
  assert.deepEqual(fullNames('No/Image'), []);
});

test('an image is served under the name of its upstream, with the default namespace for short names', () => {
  const upstreams = { mine: { hosts: ['registry.example'], defaultNamespace: 'team' }, ghcr: { hosts: ['ghcr.io'] } };
  const hosts = servedHosts({ upstreams });
  const served = (image: string) => {
    const parsed = parseImage(image);
    return parsed && servedRepository(parsed, hosts);
  };
  assert.equal(served('registry.example/app'), 'mine/team/app');
  assert.equal(served('registry.example/other/app'), 'mine/other/app');
  assert.equal(served('ghcr.io/app'), 'ghcr/app');
  assert.equal(served('elsewhere.example/app'), undefined);
  assert.equal(served(`ghcr.io/${'a'.repeat(252)}`), undefined, 'too long with the upstream in front');
});
