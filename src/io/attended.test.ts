import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attended } from './attended.ts';

test('a body whose signal is aborted between two chunks has been left, and frees what it holds', async () => {
  const events: string[] = [];
  async function* body() {
    try {
      for (;;) yield await Promise.resolve(Buffer.from('chunk'));
    } finally {
      events.push('freed');
    }
  }
  const controller = new AbortController();
  const iterator = attended(body(), controller.signal, () => events.push('left'))[Symbol.asyncIterator]();
  await iterator.next();
  assert.deepEqual(events, []);
  controller.abort();
  await new Promise(setImmediate);
  assert.deepEqual(events, ['left', 'freed']);
});
