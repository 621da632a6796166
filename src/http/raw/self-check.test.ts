import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rawSocketsWork } from './self-check.ts';

test('a self-check that times out reports failure and affects nothing else', async (t) => {
  // The time is up before the answer arrives, as on a machine that stalls for seconds.
  t.mock.method(AbortSignal, 'timeout', () => AbortSignal.abort(new Error('too late')));
  assert.equal(await rawSocketsWork(), false);
  await new Promise((resolve) => setTimeout(resolve, 200)); // an error without a listener would fail the test
});
