import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ratesOf } from './rates.ts';

const SINCE = Date.parse('2026-03-01T10:00:00Z');
const history = { since: new Date(SINCE).toISOString(), stepSeconds: 10, sentBytes: [0, 50, 20], upstreamBytes: [100, 0, 100] };

test('a rate is that of the whole step; of the step that is running, that of its time so far', () => {
  const { sent, fetched } = ratesOf(history, SINCE + 25_000);
  assert.deepEqual(sent, [0, 5, 4]);
  assert.deepEqual(fetched, [10, 0, 20]);
});

test('a step that has just begun has no rate yet', () => {
  assert.deepEqual(ratesOf(history, SINCE + 21_000).fetched, [10, 0, null]);
});

test('a clock that is ahead does not make the last rate smaller', () => {
  assert.deepEqual(ratesOf(history, SINCE + 3_600_000).fetched, [10, 0, 10]);
});
