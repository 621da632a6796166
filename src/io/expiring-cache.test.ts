import assert from 'node:assert/strict';
import { createHook } from 'node:async_hooks';
import { test } from 'node:test';
import { createExpiringCache } from './expiring-cache.ts';

test('entries are dropped after their time, and the least recently used before others', () => {
  let time = 1;
  const cache = createExpiringCache<string, number>({ max: 2, ttl: 100, perf: { now: () => time } });
  for (const [n, key] of ['a', 'b', 'c'].entries()) cache.set(key, n);
  assert.equal(cache.get('a'), undefined);
  time += 100;
  assert.equal(cache.get('c'), 2);
  time += 1;
  assert.equal(cache.get('c'), undefined);
});

test('accesses start no timers, which would wake the event loop', () => {
  const cache = createExpiringCache<string, number>({ max: 2, ttl: 60_000, updateAgeOnGet: true });
  let timers = 0;
  const hook = createHook({ init: (_id, type) => void (timers += Number(type === 'Timeout')) }).enable();
  cache.set('a', 1);
  for (let n = 0; n < 10; n++) assert.equal(cache.get('a'), 1);
  hook.disable();
  assert.equal(timers, 0);
});
