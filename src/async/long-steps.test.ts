import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLongSteps } from './long-steps.ts';

test('long steps run one after the other, with a turn for timers in between, and a failed one stops none', async () => {
  const longStep = createLongSteps();
  const order: string[] = [];
  const steps = ['a', 'b', 'c'].map((name) =>
    longStep(() => {
      order.push(name);
      setTimeout(() => order.push(`after ${name}`), 0);
      for (const end = performance.now() + 5; performance.now() < end;); // so that the timer is due
      if (name === 'b') throw new Error('b fails');
      return name;
    }),
  );
  const results = await Promise.allSettled(steps);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  );
  assert.deepEqual(order.slice(0, 5), ['a', 'after a', 'b', 'after b', 'c']);
});
