import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BUFFER_SIZE, copyOf, createBufferPool } from './buffers.ts';

test('a released buffer is given out again', () => {
  const pool = createBufferPool(2);
  const first = pool.acquire();
  pool.release(first);
  assert.equal(pool.acquire(), first);
});

test('an empty pool returns small buffers instead of waiting, and never keeps a small one in place of a large one', () => {
  const pool = createBufferPool(1);
  const own = pool.acquire();
  const spare = pool.acquire();
  assert.equal(own.length, BUFFER_SIZE);
  assert.ok(spare.length < BUFFER_SIZE);
  pool.release(spare);
  pool.release(own);
  assert.equal(pool.acquire(), own);
});

test('a forgotten buffer makes room, and is never given out again', () => {
  const pool = createBufferPool(1);
  const held = pool.acquire();
  pool.forget(held);
  assert.equal(pool.used, 0);
  const next = pool.acquire();
  assert.equal(next.length, BUFFER_SIZE);
  assert.notEqual(next, held);
});

test('a buffer that is released twice is handed out once', () => {
  const pool = createBufferPool(2);
  const buffer = pool.acquire();
  pool.release(buffer);
  pool.release(buffer);
  assert.notEqual(pool.acquire(), pool.acquire());
});

test('a copy of bytes has memory of its own', () => {
  for (const shared of [false, true]) {
    const bytes = createBufferPool(1, 16, { shared }).acquire();
    bytes.fill(1);
    const copy = copyOf(bytes.subarray(4, 8));
    bytes.fill(2);
    assert.deepEqual([...copy], [1, 1, 1, 1]);
    assert.ok(copy.buffer instanceof ArrayBuffer && copy.buffer.byteLength === 4);
  }
});
