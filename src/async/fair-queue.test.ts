import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isOciError } from '../oci/error.ts';
import { createFairQueue } from './fair-queue.ts';

const forever = new AbortController().signal;
const isRefused = (error: unknown) => isOciError(error, 'TOOMANYREQUESTS');

test('however many wait under one key, another key is served next', async () => {
  const { acquire } = createFairQueue({ running: 1, waiting: 100, perKey: 100 });
  const order: string[] = [];
  const first = await acquire('flood', forever);
  const enter = async (key: string) => {
    const leave = await acquire(key, forever);
    order.push(key);
    leave();
  };
  const all = [...Array.from({ length: 20 }, () => enter('flood')), enter('quiet'), enter('other')];
  first();
  await Promise.all(all);
  assert.ok(order.indexOf('quiet') <= 2 && order.indexOf('other') <= 3, order.join());
  assert.equal(order.length, 22);
});

test('a key with too many waiting callers is refused; when the whole queue is full, the longest-waiting caller is dropped', async () => {
  const { acquire } = createFairQueue({ running: 1, waiting: 3, perKey: 2 });
  const first = await acquire('a', forever);
  const oldest = acquire('a', forever);
  const second = acquire('a', forever);
  await assert.rejects(acquire('a', forever), isRefused);
  const third = acquire('b', forever);
  const fourth = acquire('c', forever);
  await assert.rejects(oldest, isRefused);
  first();
  for (const next of [second, third, fourth]) (await next)();
  (await acquire('a', forever))();
});

test('a caller that leaves the queue takes no place', async () => {
  const { acquire } = createFairQueue({ running: 1, waiting: 10, perKey: 10 });
  const first = await acquire('a', forever);
  const leaving = new AbortController();
  const left = acquire('a', leaving.signal);
  const stays = acquire('a', forever);
  leaving.abort(new Error('left'));
  await assert.rejects(left, /left/);
  first();
  (await stays)();
  (await acquire('b', forever))();
});
