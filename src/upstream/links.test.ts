import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseNextLink, parseRegistryUrl, resolveNextPage } from './links.ts';

test('the next page is found in every form of a Link header', () => {
  for (const header of [
    '</v2/a/tags/list?last=b>; rel="next"',
    '</v2/a/tags/list?last=b>;rel=next',
    '</v2/a/tags/list?last=b>; title="a, b; c"; rel="next"',
    '</v2/a/tags/list?last=b>; REL="last next"',
    '<https://x.test/first>; rel="first", </v2/a/tags/list?last=b>; rel="next"; n=10',
    ['<https://x.test/first>; rel="prev"', '</v2/a/tags/list?last=b> ; rel = "next"'],
  ])
    assert.equal(parseNextLink(header), '/v2/a/tags/list?last=b', String(header));
  for (const header of [undefined, '', '<x>; rel="prev"', '<x>', 'x; rel="next"', '<x>; title="rel=next"'])
    assert.equal(parseNextLink(header), undefined);
  const started = performance.now();
  for (const part of ['<', '<>;', '<a>; b', ';a="', ' ; ']) parseNextLink(part.repeat(50_000));
  assert.ok(performance.now() - started < 5000);
});

test('a link leads to the next page whatever the registry believes its own address to be', () => {
  const rows: [url: string, page: string, link: string, expected: string][] = [
    ['https://r.test', 'https://r.test/v2/a/tags/list', '?last=b', 'https://r.test/v2/a/tags/list?last=b'],
    ['https://r.test', 'https://r.test/v2/a/tags/list', '/v2/a/tags/list?last=b', 'https://r.test/v2/a/tags/list?last=b'],
    [
      'https://r.test',
      'https://r.test/v2/a/tags/list',
      'http://10.0.0.1:5000/v2/a/tags/list?last=b',
      'https://r.test/v2/a/tags/list?last=b',
    ],
    ['https://r.test', 'https://r.test/v2/a/tags/list', '/api/pages/7', 'https://r.test/api/pages/7'],
    ['https://r.test/base', 'https://r.test/base/v2/a/tags/list', '/v2/a/tags/list?last=b', 'https://r.test/base/v2/a/tags/list?last=b'],
    [
      'https://r.test/base',
      'https://r.test/base/v2/a/tags/list',
      '/base/v2/a/tags/list?last=b',
      'https://r.test/base/v2/a/tags/list?last=b',
    ],
    ['https://r.test/v2/hub', 'https://r.test/v2/hub/a/tags/list', '/v2/a/tags/list?last=b', 'https://r.test/v2/hub/a/tags/list?last=b'],
    [
      'https://r.test/v2/hub',
      'https://r.test/v2/hub/a/tags/list',
      '/v2/hub/a/tags/list?last=b',
      'https://r.test/v2/hub/a/tags/list?last=b',
    ],
    [
      'https://r.test/x/v2/hub',
      'https://r.test/x/v2/hub/a/tags/list',
      '/v2/a/tags/list?last=b',
      'https://r.test/x/v2/hub/a/tags/list?last=b',
    ],
    ['https://r.test', 'https://other.test/v2/p/a/tags/list', '/v2/p/a/tags/list?last=b', 'https://other.test/v2/p/a/tags/list?last=b'],
  ];
  for (const [url, page, link, expected] of rows) {
    assert.equal(resolveNextPage(link, new URL(page), parseRegistryUrl(url))?.href, expected, `${link} of ${page}`);
  }
  assert.equal(resolveNextPage('http://[', new URL('https://r.test/'), parseRegistryUrl('https://r.test')), undefined);
});

test('the URL of a registry is understood with a base path, a project, and a superfluous /v2', () => {
  const parsed = (url: string) => {
    const { origin, base, project, endsInV2 } = parseRegistryUrl(url);
    return [origin, base, project, endsInV2];
  };
  assert.deepEqual(parsed('https://r.test:8443'), ['https://r.test:8443', '', '', false]);
  assert.deepEqual(parsed('https://r.test/'), ['https://r.test', '', '', false]);
  assert.deepEqual(parsed('https://r.test/artifactory/'), ['https://r.test', '/artifactory', '', false]);
  assert.deepEqual(parsed('https://r.test/v2'), ['https://r.test', '', '', true]);
  assert.deepEqual(parsed('https://r.test/v2/'), ['https://r.test', '', '', true]);
  assert.deepEqual(parsed('https://r.test/base/v2/'), ['https://r.test', '/base', '', true]);
  assert.deepEqual(parsed('https://r.test/v2/hub-proxy/'), ['https://r.test', '', 'hub-proxy/', false]);
  assert.deepEqual(parsed('https://r.test/base/v2/a/b'), ['https://r.test', '/base', 'a/b/', false]);
});
