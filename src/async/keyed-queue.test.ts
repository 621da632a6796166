import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKeyedQueue } from './keyed-queue.ts';

test('tasks run in order, a few at once, and never two for one key', async () => {
  const began: string[] = [];
  const ends = new Map<string, () => void>();
  const stop = new AbortController();
  const queue = createKeyedQueue<number>({
    parallel: 2,
    async run(key, value) {
      began.push(`${key}${value}`);
      await new Promise<void>((resolve) => void ends.set(key, resolve));
    },
    changed: () => undefined,
    signal: stop.signal,
  });
  const finish = async (key: string): Promise<void> => {
    ends.get(key)?.();
    await new Promise(setImmediate);
  };
  queue.add('a', 1);
  queue.add('a', 2);
  queue.add('b', 1);
  queue.add('c', 1);
  assert.deepEqual(began, ['a1', 'b1'], 'the second task of a waits for the first');
  assert.equal(queue.size(), 4);
  await finish('b');
  assert.deepEqual(began, ['a1', 'b1', 'c1']);
  await finish('a');
  assert.deepEqual(began, ['a1', 'b1', 'c1', 'a2']);
  queue.add('d', 1);
  stop.abort();
  await finish('a');
  await finish('c');
  assert.deepEqual([began.at(-1), queue.isWaiting('d'), queue.running()], ['a2', true, []], 'after the abort no task begins');
});
