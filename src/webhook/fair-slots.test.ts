import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { createFairSlots } from './fair-slots.ts';

const { signal } = new AbortController();

test('clients take turns, however many requests one of them has sent', async () => {
  const slots = createFairSlots({ total: 1, perClient: 1, maxWaiting: 100 });
  const order: string[] = [];
  const work = async (client: string): Promise<void> => {
    const giveBack = await slots.take(client, signal);
    order.push(client);
    await turn();
    giveBack?.();
  };
  await Promise.all([...Array.from({ length: 20 }, () => work('attacker')), work('api server'), work('api server')]);
  assert.deepEqual(order.slice(0, 4), ['attacker', 'api server', 'attacker', 'api server']);
  assert.equal(order.length, 22, 'every client gets its turn');
});

test('a client has no more slots and no more waiting requests than its share', async () => {
  const slots = createFairSlots({ total: 3, perClient: 2, maxWaiting: 1 });
  const [first, second] = [await slots.take('a', signal), await slots.take('a', signal)];
  const third = slots.take('a', signal);
  assert.equal(await slots.take('a', signal), undefined, 'too many wait');
  const other = await slots.take('b', signal);
  assert.ok(first !== undefined && second !== undefined && other !== undefined);
  first();
  first(); // giving back twice frees one slot
  assert.ok((await third) !== undefined);
});

test('a request whose client has left stops waiting, and does not affect others', async () => {
  const slots = createFairSlots({ total: 1, perClient: 1, maxWaiting: 10 });
  const held = await slots.take('a', signal);
  const gone = new AbortController();
  const leaving = slots.take('b', gone.signal);
  const staying = slots.take('b', signal);
  gone.abort();
  assert.equal(await leaving, undefined);
  held?.();
  assert.ok((await staying) !== undefined);
});
