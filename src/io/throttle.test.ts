import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readAll } from './body.ts';
import { createThrottle } from './throttle.ts';

const PIECE_BYTES = 50_000;
const PIECES = 10;

async function* pieces(): AsyncGenerator<Uint8Array> {
  for (let count = 0; count < PIECES; count++) yield Buffer.alloc(PIECE_BYTES, count);
}

test('bodies share a rate, and their bytes stay as they are', async () => {
  const { signal } = new AbortController();
  const throttle = createThrottle(1_000_000);
  const started = performance.now();
  const read = await Promise.all([1, 2].map(() => readAll(throttle.slow(pieces(), signal), 2 * PIECES * PIECE_BYTES)));
  assert.ok(performance.now() - started > 700, 'after the burst, a megabyte takes a second');
  for (const bytes of read) assert.equal(bytes?.length, PIECES * PIECE_BYTES);
});
