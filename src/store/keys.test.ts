import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestOf } from '../oci/digest.ts';
import { isOciError } from '../oci/error.ts';
import { joinRepository, parseRepository, parseTag } from '../oci/reference.ts';
import {
  blobKey,
  checkKey,
  checkPrefix,
  memberKey,
  parseBlobKey,
  parsePartKey,
  parseRepositoryKey,
  parseUsedKey,
  partKey,
  referrerListKey,
  tagKey,
  usedKey,
} from './keys.ts';

const repository = joinRepository('dockerhub', parseRepository('library/nginx'));
const digest = digestOf(Buffer.from('content'));
const hex = digest.slice('sha256:'.length);

test('keys have the documented layout', () => {
  assert.equal(blobKey(digest), `v1/blobs/sha256/${hex.slice(0, 2)}/${hex}`);
  assert.equal(tagKey(repository, parseTag('1.27')), 'v1/repos/dockerhub/library/nginx/_tags/1.27');
  assert.equal(memberKey(repository, digest), `v1/repos/dockerhub/library/nginx/_members/sha256/${hex}`);
  assert.equal(usedKey(new Date('2026-03-01T23:59:59Z'), repository, digest), `v1/used/2026-03-01/dockerhub/library/nginx/${digest}`);
});

test('every key of the design is a key, however long its names are', () => {
  const long = parseRepository(`dockerhub/${'a'.repeat(245)}`);
  const keys = [
    blobKey(digestOf(Buffer.from(''), 'sha512')),
    tagKey(long, parseTag(`_${'x'.repeat(127)}`)),
    memberKey(long, digestOf(Buffer.from(''), 'sha512')),
    usedKey(new Date(), long, digestOf(Buffer.from(''), 'sha512')),
  ];
  for (const key of keys) assert.equal(checkKey(key), key);
});

test('no key leads out of the store', () => {
  const bad = [
    '',
    '/',
    '/etc',
    'v1/',
    'v1//x',
    'v1/./x',
    'v1/../x',
    '..',
    '.tmp/x',
    'v1/.x',
    'v1/x\0',
    'v1/x y',
    'v1/ü',
    'v1\\x',
    'v1/%2e',
  ];
  for (const key of [...bad, `v1/${'x'.repeat(256)}`, `v1/${'x/'.repeat(500)}x`])
    assert.throws(
      () => checkKey(key),
      (error) => isOciError(error, 'NAME_INVALID'),
      JSON.stringify(key),
    );
});

test('a prefix may end within a segment, and no prefix leads out', () => {
  for (const prefix of ['', 'v1', 'v1/', 'v1/blobs/sha256/ab/12']) assert.equal(checkPrefix(prefix), prefix);
  for (const prefix of ['/', '../', 'v1/../', 'v1/.', 'v1//', 'v1/\0'])
    assert.throws(
      () => checkPrefix(prefix),
      (error) => isOciError(error, 'NAME_INVALID'),
      JSON.stringify(prefix),
    );
});

test('keys can be parsed back into what they name', () => {
  const day = new Date('2026-03-01T23:59:59Z');
  for (const own of [digest, digestOf(Buffer.from('content'), 'sha512')]) {
    assert.equal(parseBlobKey(blobKey(own)), own);
    assert.deepEqual(parseRepositoryKey(memberKey(repository, own)), { repository, member: own });
    assert.deepEqual(parseRepositoryKey(referrerListKey(repository, own)), { repository, subject: own });
    assert.deepEqual(parseUsedKey(usedKey(day, repository, own)), { day: '2026-03-01', repository, digest: own });
    const part = { size: 6 * 2 ** 30, start: 5 * 2 ** 30 };
    assert.deepEqual(parsePartKey(partKey(own, { ...part, nonce: hex.slice(0, 16) })), { digest: own, ...part });
  }
  assert.deepEqual(parseRepositoryKey(tagKey(repository, parseTag('1.27'))), { repository, tag: '1.27' });
});

test('foreign keys are not parsed', () => {
  for (const key of ['v1/blobs/', `v1/blobs/sha256/00/${hex}`, `v1/blobs/md5/aa/${hex}`, `${blobKey(digest)}/more`]) {
    assert.equal(parseBlobKey(key), undefined, key);
  }
  for (const key of [
    'v1/repos/',
    'v1/repos/Upper/_tags/1',
    'v1/repos/hub/a/_tags/',
    'v1/repos/hub/a/_tags/1/2',
    'v1/repos/hub/a/_other/1',
  ]) {
    assert.equal(parseRepositoryKey(key), undefined, key);
  }
  for (const key of ['v1/used/', `v1/used/today/hub/a/${digest}`, 'v1/used/2026-03-01/hub/a/latest']) {
    assert.equal(parseUsedKey(key), undefined, key);
  }
});
