import assert from 'node:assert/strict';
import { beforeEach, mock, test } from 'node:test';
import { createHistory } from './history.ts';

const START = Date.UTC(2026, 0, 1, 12);

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: START });
});

test('a count appears in the figures at once, at the point of its time', () => {
  const history = createHistory();
  history.now().requests++;
  assert.equal(history.totals().requests, 1);
  assert.equal(history.hour().requests, 1);
  for (let second = 0; second < 60; second++) {
    history.now().requests++;
    history.now().sentBytes += 10;
    mock.timers.tick(1000);
  }
  const { requests, sentBytes } = history.read('hour');
  assert.deepEqual(requests.slice(-7), [11, 10, 10, 10, 10, 10, 0]);
  assert.deepEqual(sentBytes.slice(-7), [100, 100, 100, 100, 100, 100, 0]);
  assert.equal(history.read('day').requests.at(-1), 61);
  assert.equal(history.totals().requests, 61);
});

test('the last hour drops older counts, the totals keep them', () => {
  const history = createHistory();
  history.now().hits += 5;
  mock.timers.tick(2 * 3_600_000);
  history.now().hits += 2;
  assert.equal(history.hour().hits, 2);
  assert.equal(history.totals().hits, 7);
  assert.equal(
    history.read('day').hits.reduce((sum, value) => sum + value),
    7,
  );
});

test('the longest wait for an upstream is a maximum, the others are means', () => {
  const history = createHistory();
  for (const seconds of [0.1, 0.5, 0.3]) {
    history.asked(seconds);
    mock.timers.tick(1500);
  }
  const { latencyMs, latencyMaxMs, upstreamRequests } = history.read('hour');
  assert.equal(upstreamRequests.at(-1), 3);
  assert.equal(latencyMaxMs.at(-1), 500);
  assert.ok(Math.abs((latencyMs.at(-1) ?? 0) - 300) < 1e-9);
});
