import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createReviewPath, withoutToken } from './review-path.ts';

test('promise 18: only the path that the configuration holds is trusted, and a new token changes it', () => {
  let token = 'first';
  const { path, isTrusted } = createReviewPath(() => token);
  assert.equal(path(), '/mutate/first');
  for (const other of ['/', '/mutate', '/mutate/', '/mutate/first/', '/mutate/First', '']) assert.equal(isTrusted(other), false, other);
  assert.equal(isTrusted('/mutate/first'), true);
  token = 'second';
  assert.equal(isTrusted('/mutate/first'), false);
  assert.equal(isTrusted('/mutate/second'), true);
});

test('without a token every path is trusted, and the log shows none', () => {
  const { path, isTrusted } = createReviewPath(undefined);
  assert.equal(path(), '/mutate');
  assert.ok(isTrusted('/mutate'));
  assert.equal(withoutToken('/mutate/secret'), '/mutate/…');
  assert.equal(withoutToken('/other'), '/other');
});
