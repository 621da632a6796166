import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { isOciError } from '../oci/error.ts';
import { backoff } from './backoff.ts';
import { inParallel } from './parallel.ts';
import { raceAbort } from './race-abort.ts';
import { createSemaphore } from './semaphore.ts';
import { singleFlight } from './single-flight.ts';

const forever = new AbortController().signal;

test('a wait ends with its promise or with its signal, whichever comes first', async () => {
  assert.equal(await raceAbort(Promise.resolve(1), forever), 1);
  await assert.rejects(raceAbort(Promise.reject(new Error('work')), forever), /work/);
  await assert.rejects(raceAbort(new Promise(() => undefined), AbortSignal.abort(new Error('left'))), /left/);
  const controller = new AbortController();
  const waiting = raceAbort(new Promise(() => undefined), controller.signal);
  controller.abort(new Error('left later'));
  await assert.rejects(waiting, /left later/);
});

test('callers of one key share one call, and a caller that leaves does not end it for the others', async () => {
  const share = singleFlight<number>({ timeoutMs: 10_000 });
  const { promise, resolve } = Promise.withResolvers<number>();
  let calls = 0;
  const work = () => {
    calls++;
    return promise;
  };
  const leaving = new AbortController();
  const left = share('key', leaving.signal, work);
  const stayed = share('key', forever, work);
  leaving.abort(new Error('left'));
  await assert.rejects(left, /left/);
  resolve(7);
  assert.equal(await stayed, 7);
  assert.equal(calls, 1);
  await share('key', forever, work);
  assert.equal(calls, 2, 'an answer is not kept');
});

test('a shared call that takes too long fails, even after all callers have left', async () => {
  const share = singleFlight<void>({ timeoutMs: 20 });
  const until = (signal: AbortSignal) => raceAbort(new Promise<void>(() => undefined), signal);
  await assert.rejects(share('key', forever, until), (error) => isOciError(error, 'UNAVAILABLE'));
  await assert.rejects(share('key', AbortSignal.timeout(1), until), { name: 'TimeoutError' });
  await delay(50); // its failure does not become an unhandled rejection
});

test('a shared call ends soon after its last caller has left, and not while another one has come', async () => {
  const share = singleFlight<void>({ timeoutMs: 60_000, lingerMs: 50 });
  const ended: unknown[] = [];
  const work = async (signal: AbortSignal) => {
    await raceAbort(new Promise<void>(() => undefined), signal).catch((error: unknown) => ended.push(error));
  };
  const first = new AbortController();
  const second = new AbortController();
  const one = share('key', first.signal, work);
  first.abort(new Error('left'));
  await assert.rejects(one, /left/);
  const two = share('key', second.signal, work);
  await delay(150);
  assert.equal(ended.length, 0);
  second.abort(new Error('left too'));
  await assert.rejects(two, /left too/);
  for (let waited = 0; ended.length === 0 && waited < 5000; waited += 20) await delay(20);
  assert.ok(isOciError(ended[0], 'UNAVAILABLE'));
});

test('a semaphore admits as many callers as it has places, in order; callers that leave the queue take no place', async () => {
  const { acquire, run } = createSemaphore(2, { maxWaiting: 2 });
  const [first, second] = [await acquire(), await acquire()];
  const order: string[] = [];
  const leaving = new AbortController();
  const left = acquire(leaving.signal);
  const third = run(() => Promise.resolve(order.push('third')));
  await assert.rejects(acquire(), (error) => isOciError(error, 'TOOMANYREQUESTS'));
  leaving.abort(new Error('left'));
  await assert.rejects(left, /left/);
  const fourth = run(() => Promise.resolve(order.push('fourth')));
  first();
  first(); // counts once
  await third;
  await fourth;
  assert.deepEqual(order, ['third', 'fourth']);
  await assert.rejects(
    run(() => Promise.reject(new Error('work'))),
    /work/,
  );
  second();
  await Promise.all([acquire(), acquire()]);
});

test('a semaphore never exceeds or loses its slots, regardless of when callers leave', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.tuple(fc.boolean(), fc.nat(3)), { maxLength: 30 }),
      async (places, all) => {
        const semaphore = createSemaphore(places);
        const { run } = semaphore;
        let inside = 0;
        let most = 0;
        await Promise.all(
          all.map(async ([leaves, turns]) => {
            const controller = new AbortController();
            const work = async () => {
              most = Math.max(most, ++inside);
              for (let turn = 0; turn < turns; turn++) await Promise.resolve();
              inside--;
            };
            const ran = run(work, controller.signal).catch(() => undefined); // those that leave
            for (let turn = 0; turn < turns; turn++) await Promise.resolve();
            if (leaves) controller.abort();
            await ran;
          }),
        );
        assert.ok(most <= places);
        const { acquire } = semaphore;
        await Promise.all(Array.from({ length: places }, () => acquire())); // all places are free again
      },
    ),
    { numRuns: 200 },
  );
});

test('pauses double up to their cap; jitter keeps them within its bounds', () => {
  const pauses = [0, 1, 2, 3, 4].map((attempt) => backoff(attempt, { baseMs: 100, capMs: 500 }));
  assert.deepEqual(pauses, [100, 200, 400, 500, 500]);
  for (let count = 0; count < 100; count++) {
    const half = backoff(1, { baseMs: 100, jitter: 'half' });
    assert.ok(half >= 100 && half < 300);
    const full = backoff(20, { baseMs: 100, capMs: 500, jitter: 'full' });
    assert.ok(full >= 0 && full < 500);
  }
});

test('work runs on so many items at a time, and none is begun after a failure', async () => {
  let running = 0;
  let most = 0;
  await inParallel([1, 2, 3, 4, 5], 2, async () => {
    most = Math.max(most, ++running);
    await delay(5);
    running--;
  });
  assert.equal(most, 2);
  const begun: number[] = [];
  const failing = inParallel([1, 2, 3, 4, 5], 1, (item) => {
    begun.push(item);
    return item === 2 ? Promise.reject(new Error('second')) : Promise.resolve();
  });
  await assert.rejects(failing, /second/);
  assert.deepEqual(begun, [1, 2]);
});

test('when many calls have been left, those that are left last end at once, and those that were left first end together', async () => {
  const share = singleFlight<void>({ timeoutMs: 60_000, lingerMs: 300 });
  const client = new AbortController();
  const ended: number[] = [];
  const all = Array.from({ length: 300 }, (_, index) =>
    share(String(index), client.signal, async (signal) => {
      await raceAbort(new Promise<void>(() => undefined), signal).catch(() => ended.push(index));
    }),
  );
  client.abort(new Error('left'));
  await Promise.allSettled(all);
  await delay(0);
  assert.deepEqual(
    ended,
    Array.from({ length: 44 }, (_, index) => 256 + index),
  );
  for (let waited = 0; ended.length < 300 && waited < 5000; waited += 20) await delay(20);
  assert.equal(ended.length, 300);
});
