import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isDigest } from '../oci/digest.ts';
import { isOciError, type OciErrorCode } from '../oci/error.ts';
import { isRepository, isTag } from '../oci/reference.ts';
import { parseRequest } from './parse-request.ts';

const HEX = 'a'.repeat(64);
const DIGEST = `sha256:${HEX}`;
const SHA512 = `sha512:${'b'.repeat(128)}`;
const LONG_NAME = Array.from({ length: 60 }, () => 'abcd').join('/');

test('reads every endpoint of the distribution specification', () => {
  const namespace = undefined;
  const cases: [string, unknown][] = [
    ['/v2/', { kind: 'ping' }],
    ['/v2', { kind: 'ping' }],
    ['/v2/?ns=docker.io', { kind: 'ping' }],
    ['http://registry.example/v2/', { kind: 'ping' }],
    ['/v2/hub/nginx/manifests/1.27', { kind: 'manifest', repository: 'hub/nginx', namespace, reference: '1.27' }],
    [`/v2/hub/a/b/c/manifests/${DIGEST}`, { kind: 'manifest', repository: 'hub/a/b/c', namespace, reference: DIGEST }],
    [`/v2/hub/nginx/manifests/sha256%3A${HEX}`, { kind: 'manifest', repository: 'hub/nginx', namespace, reference: DIGEST }],
    [
      '/v2/library/nginx/manifests/1?ns=docker.io',
      { kind: 'manifest', repository: 'library/nginx', namespace: 'docker.io', reference: '1' },
    ],
    [
      '/v2/x/manifests/1?ns=Registry.Example%3A5000',
      { kind: 'manifest', repository: 'x', namespace: 'registry.example:5000', reference: '1' },
    ],
    ['/v2/x/manifests/1?ns=[::1]:5000', { kind: 'manifest', repository: 'x', namespace: '[::1]:5000', reference: '1' }],
    ['/v2/x/manifests/1?ns=', { kind: 'manifest', repository: 'x', namespace, reference: '1' }],
    [`/v2/hub/nginx/blobs/${SHA512}`, { kind: 'blob', repository: 'hub/nginx', namespace, digest: SHA512 }],
    [`/v2/hub/nginx/blobs/sha256%3a${HEX}`, { kind: 'blob', repository: 'hub/nginx', namespace, digest: DIGEST }],
    ['/v2/hub/nginx/tags/list', { kind: 'tags', repository: 'hub/nginx', namespace, page: { n: undefined, last: undefined } }],
    ['/v2/hub/nginx/tags/list?n=0', { kind: 'tags', repository: 'hub/nginx', namespace, page: { n: 0, last: undefined } }],
    ['/v2/hub/nginx/tags/list?n=10&last=v1', { kind: 'tags', repository: 'hub/nginx', namespace, page: { n: 10, last: 'v1' } }],
    [
      `/v2/hub/nginx/referrers/${DIGEST}`,
      { kind: 'referrers', repository: 'hub/nginx', namespace, digest: DIGEST, artifactType: undefined },
    ],
    [
      `/v2/hub/nginx/referrers/${DIGEST}?artifactType=application%2Fvnd.example%2Bjson`,
      { kind: 'referrers', repository: 'hub/nginx', namespace, digest: DIGEST, artifactType: 'application/vnd.example+json' },
    ],
  ];
  for (const [target, expected] of cases) assert.deepEqual(parseRequest('GET', target), expected, target);
});

test('a repository may be named like the endpoints', () => {
  for (const name of [
    'manifests',
    'hub/manifests',
    'hub/manifests/blobs',
    'hub/tags/list',
    'hub/blobs/uploads',
    'v2/v2',
    'hub/referrers/tags',
  ]) {
    const manifest = parseRequest('GET', `/v2/${name}/manifests/latest`);
    assert.deepEqual(manifest, { kind: 'manifest', repository: name, namespace: undefined, reference: 'latest' });
    const tags = parseRequest('HEAD', `/v2/${name}/tags/list`);
    assert.deepEqual(tags, { kind: 'tags', repository: name, namespace: undefined, page: { n: undefined, last: undefined } });
  }
});

test('whatever would write, and the catalog, is unsupported', () => {
  const cases: [string, string, string][] = [
    ['PUT', '/v2/hub/nginx/manifests/1', 'GET, HEAD'],
    ['POST', '/v2/hub/nginx/blobs/uploads/', 'GET, HEAD'],
    ['PATCH', '/v2/hub/nginx/blobs/uploads/5d0c', 'GET, HEAD'],
    ['DELETE', `/v2/hub/nginx/blobs/${DIGEST}`, 'GET, HEAD'],
    ['OPTIONS', '/v2/', 'GET, HEAD'],
    ['PUT', '/v2/not A name/manifests/1', 'GET, HEAD'],
    ['GET', '/v2/hub/nginx/blobs/uploads/', ''],
    ['GET', '/v2/hub/nginx/blobs/uploads', ''],
    ['GET', '/v2/hub/nginx/blobs/uploads/5d0c', ''],
    ['GET', '/v2/_catalog', ''],
    ['GET', '/v2/_catalog?n=5', ''],
  ];
  for (const [method, target, allow] of cases) {
    const parsed = parseRequest(method, target);
    assert.equal(parsed.kind, 'unsupported', `${method} ${target}`);
    assert.equal(parsed.kind === 'unsupported' && parsed.allow, allow, `${method} ${target}`);
  }
});

test("refuses requests outside the grammar, with the specification's error code", () => {
  const cases: [string, OciErrorCode][] = [
    ['/', 'NAME_UNKNOWN'],
    ['', 'NAME_UNKNOWN'],
    ['*', 'NAME_UNKNOWN'],
    ['/v1/', 'NAME_UNKNOWN'],
    ['/v2x', 'NAME_UNKNOWN'],
    ['//v2/', 'NAME_UNKNOWN'],
    ['/v2/hub', 'NAME_UNKNOWN'],
    ['/v2/hub/nginx', 'NAME_UNKNOWN'],
    ['/v2/hub/nginx/', 'NAME_UNKNOWN'],
    ['/v2/hub/nginx/manifests/a/b', 'NAME_UNKNOWN'],
    ['/v2/hub/nginx/tags/other', 'NAME_UNKNOWN'],
    ['/v2/hub/nginx/tags/list/', 'NAME_UNKNOWN'],
    ['/v2/manifests/latest', 'NAME_INVALID'],
    ['/v2//manifests/latest', 'NAME_INVALID'],
    ['/v2/hub//nginx/manifests/latest', 'NAME_INVALID'],
    ['/v2/hub/nginx//manifests/latest', 'NAME_INVALID'],
    ['/v2/hub/Nginx/manifests/latest', 'NAME_INVALID'],
    ['/v2/hub/../etc/manifests/latest', 'NAME_INVALID'],
    ['/v2/hub/./nginx/manifests/latest', 'NAME_INVALID'],
    ['/v2/hub%2fnginx/manifests/latest', 'NAME_INVALID'],
    ['/v2/hub/%2e%2e/manifests/latest', 'NAME_INVALID'],
    ['/v2/hub/nginx%00/manifests/latest', 'NAME_INVALID'],
    ['/v2/hub/nginx%ff/manifests/latest', 'NAME_INVALID'],
    ['/v2/hub/\u00ffnginx/manifests/latest', 'NAME_INVALID'],
    ['/v2/hub/nginx\\x/manifests/latest', 'NAME_INVALID'],
    [`/v2/${LONG_NAME}/manifests/latest`, 'NAME_INVALID'],
    ['/v2/hub/nginx/manifests/', 'TAG_INVALID'],
    ['/v2/hub/nginx/manifests/-a', 'TAG_INVALID'],
    ['/v2/hub/nginx/manifests/..', 'TAG_INVALID'],
    ['/v2/hub/nginx/manifests/..%2f..%2fetc', 'TAG_INVALID'],
    ['/v2/hub/nginx/manifests/a%00', 'TAG_INVALID'],
    ['/v2/hub/nginx/manifests/%61', 'TAG_INVALID'],
    [`/v2/hub/nginx/manifests/${'a'.repeat(129)}`, 'TAG_INVALID'],
    ['/v2/hub/nginx/manifests/sha256:abc', 'DIGEST_INVALID'],
    [`/v2/hub/nginx/manifests/sha256:${HEX.toUpperCase()}`, 'DIGEST_INVALID'],
    [`/v2/hub/nginx/manifests/md5:${'a'.repeat(32)}`, 'DIGEST_INVALID'],
    ['/v2/hub/nginx/blobs/latest', 'DIGEST_INVALID'],
    ['/v2/hub/nginx/blobs/', 'DIGEST_INVALID'],
    [`/v2/hub/nginx/blobs/${DIGEST}a`, 'DIGEST_INVALID'],
    [`/v2/hub/nginx/blobs/sha512:${HEX}`, 'DIGEST_INVALID'],
    [`/v2/hub/nginx/blobs/sha256%253a${HEX}`, 'DIGEST_INVALID'],
    ['/v2/hub/nginx/referrers/latest', 'DIGEST_INVALID'],
    [`/v2/hub/nginx/referrers/${DIGEST}?artifactType=x%0d%0ay`, 'NAME_INVALID'],
    ['/v2/hub/nginx/tags/list?n=-1', 'PAGINATION_NUMBER_INVALID'],
    ['/v2/hub/nginx/tags/list?n=', 'PAGINATION_NUMBER_INVALID'],
    ['/v2/hub/nginx/tags/list?n=1e9', 'PAGINATION_NUMBER_INVALID'],
    ['/v2/hub/nginx/tags/list?n=99999999999', 'PAGINATION_NUMBER_INVALID'],
    ['/v2/hub/nginx/tags/list?last=..%2f', 'TAG_INVALID'],
    ['/v2/x/manifests/1?ns=a/b', 'NAME_INVALID'],
    ['/v2/x/manifests/1?ns=user@host', 'NAME_INVALID'],
    ['/v2/x/manifests/1?ns=%00', 'NAME_INVALID'],
  ];
  for (const [target, code] of cases) {
    assert.throws(
      () => parseRequest('GET', target),
      (error) => isOciError(error, code) && error.message.length < 400,
      `${target} → ${code}`,
    );
  }
});

test('any text yields a valid request or one of the documented errors', () => {
  const piece = fc.oneof(
    fc.constantFrom(
      'v2',
      'manifests',
      'blobs',
      'tags',
      'list',
      'uploads',
      'referrers',
      'hub',
      'nginx',
      DIGEST,
      '..',
      '%2f',
      '%00',
      '',
      '?',
      'ns=',
      '&',
      '#',
    ),
    fc.string({ maxLength: 12 }),
    fc.string({ unit: 'binary', maxLength: 6 }),
  );
  const target = fc.array(piece, { maxLength: 9 }).map((pieces) => `/v2/${pieces.join('/')}`);
  fc.assert(
    fc.property(fc.constantFrom('GET', 'HEAD', 'PUT'), fc.oneof(target, fc.string()), (method, url) => {
      try {
        const parsed = parseRequest(method, url);
        if ('repository' in parsed) assert.ok(isRepository(parsed.repository));
        if ('digest' in parsed) assert.ok(isDigest(parsed.digest));
        if ('reference' in parsed) assert.ok(isTag(parsed.reference) || isDigest(parsed.reference));
        if ('namespace' in parsed && parsed.namespace !== undefined) assert.match(parsed.namespace, /^[a-z0-9.:[\]-]+$/);
      } catch (error) {
        assert.ok(isOciError(error), String(error));
      }
    }),
    { numRuns: 5_000 },
  );
});
