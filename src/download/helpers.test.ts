import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createEventLoopLoad } from './helpers.ts';

/** For `milliseconds`; the event loop turns now and then. */
async function compute(milliseconds: number): Promise<void> {
  const end = performance.now() + milliseconds;
  while (performance.now() < end) {
    const pause = performance.now() + 10;
    while (performance.now() < pause);
    await new Promise(setImmediate);
  }
}

test('a process is busy while it computes, and not while it waits, even if it computed before', async () => {
  const isBusy = createEventLoopLoad();
  await delay(200);
  assert.equal(isBusy(), false);
  await compute(200);
  assert.equal(isBusy(), true);
  assert.equal(isBusy(), true, 'asked again at once');
  await delay(200);
  assert.equal(isBusy(), false);
});
