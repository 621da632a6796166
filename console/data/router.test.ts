import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRoute, routeTo } from './router.ts';

test('a view, its name and its parameters survive the way through an address', () => {
  const cases: [string, Record<string, string | undefined>, string][] = [
    ['overview', {}, '#/overview'],
    ['images', { search: 'a b&c', sort: 'size', upstream: '' }, '#/images?search=a+b%26c&sort=size'],
    ['images', { rest: 'dockerhub/library/nginx', digest: 'sha256:1' }, '#/images/dockerhub/library/nginx?digest=sha256%3A1'],
    ['images', { rest: 'x/a?b#c%' }, '#/images/x/a%3Fb%23c%25'],
  ];
  for (const [view, options, address] of cases) {
    assert.equal(routeTo(view, options), address);
    const { rest = '', ...parameters } = options;
    const found = parseRoute(address);
    assert.equal(found.view, view);
    assert.equal(found.rest, rest);
    assert.deepEqual(
      Object.fromEntries(found.parameters),
      Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== '')),
    );
  }
});

test('an address that somebody has typed leads somewhere', () => {
  assert.equal(parseRoute('').view, '');
  assert.equal(parseRoute('#images/%zz').rest, '%zz');
});
