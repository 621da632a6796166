import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { createByteBudget } from './byte-budget.ts';

const { signal } = new AbortController();

test('leases share a number of bytes and are granted in the order of the calls', async () => {
  const budget = createByteBudget(10);
  const granted: string[] = [];
  const [first, second, third, fourth] = [budget.lease(), budget.lease(), budget.lease(), budget.lease()];
  await first.reserve(6, signal);
  const waiting = [
    second.reserve(8, signal).then(() => granted.push('second')),
    third.reserve(1, signal).then(() => granted.push('third')),
    fourth.reserve(5, signal).then(() => granted.push('fourth')),
  ];
  await turn();
  assert.deepEqual(granted, [], 'no request overtakes an earlier, larger one');
  first.release();
  first.release();
  await turn();
  assert.deepEqual(granted, ['second', 'third']);
  second.release();
  await Promise.all(waiting);
  assert.deepEqual(granted, ['second', 'third', 'fourth']);
});

test('a lease larger than the budget is granted when no other is held, and a lease that grows releases its former bytes first', async () => {
  const budget = createByteBudget(10);
  const [one, other] = [budget.lease(), budget.lease()];
  await one.reserve(4, signal);
  await one.reserve(3, signal); // holds as many already
  await other.reserve(6, signal);
  const both = [one.reserve(20, signal), other.reserve(20, signal).then(() => other.release())];
  one.release();
  await turn();
  one.release();
  await Promise.all(both);
  one.release();
});

test('a caller that leaves the queue lets the next one in', async () => {
  const budget = createByteBudget(10);
  const [one, left, next] = [budget.lease(), budget.lease(), budget.lease()];
  await one.reserve(6, signal);
  const leaving = new AbortController();
  const waiting = left.reserve(9, leaving.signal);
  const small = next.reserve(4, signal);
  leaving.abort(new Error('left'));
  await assert.rejects(waiting, /left/);
  await small;
});
