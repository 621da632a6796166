import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { captureLog } from '../../test/support/log.ts';
import { until } from '../../test/support/until.ts';
import { OciError } from '../oci/error.ts';
import { parseReference, parseRepository } from '../oci/reference.ts';
import { WARMING } from '../store/keys.ts';
import { bytesSource, type Store } from '../store/store.ts';
import { memory } from '../testing/memory-store.ts';
import { readWarmResult, warmRegularly } from './warm-schedule.ts';

const MINUTE = 60_000;
const signal = new AbortController().signal;

beforeEach(() => mock.timers.enable({ apis: ['Date'], now: new Date(2026, 0, 1, 3, 16) }));
afterEach(() => mock.timers.reset());

const sleeping = new Set<{ until: number; wake(): void }>();

/** Sleeps until the mocked clock reaches the time. */
async function sleep(milliseconds: number, stop: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const sleeper = { until: Date.now() + milliseconds, wake: () => resolve(undefined) };
  sleeping.add(sleeper);
  stop.addEventListener('abort', sleeper.wake, { once: true });
  await promise;
  sleeping.delete(sleeper);
}

/** Advances the clock, and wakes sleepers that are due. */
function pass(milliseconds: number): void {
  mock.timers.tick(milliseconds);
  for (const sleeper of sleeping) if (sleeper.until <= Date.now()) sleeper.wake();
}

/** Waits until this many replicas sleep: they have done all due work. */
async function allAsleep(count: number): Promise<void> {
  await until(() => [...sleeping].filter((sleeper) => sleeper.until > Date.now()).length === count, 'every replica sleeps');
}

/** A replica that warms three images at 03:17, of which one fails, and a pod's image from another
 *  registry. */
async function startReplica(store: Store) {
  const { log, entries } = await captureLog('info');
  const stop = new AbortController();
  const warmed: string[] = [];
  const target = (name: string) => ({
    image: name,
    located: { repository: parseRepository(`hub/${name}`), reference: parseReference('1') },
    isConfigured: true,
  });
  const ended = warmRegularly({
    store,
    schedule: '17 3 * * *',
    targets: () =>
      Promise.resolve([
        target('one'),
        target('broken'),
        target('two'),
        { image: 'elsewhere.example/app', located: undefined, isConfigured: false },
        { image: 'not an image', located: undefined, isConfigured: true },
      ]),
    begin:
      () =>
      async ({ repository }) => {
        warmed.push(repository);
        await turn();
        if (repository === 'hub/broken') throw new OciError('UNAVAILABLE', 'upstream does not answer');
        return { manifests: 1, blobs: 2, known: 0, bytes: 10 };
      },
    log,
    metrics: { warmed: () => undefined },
    timing: { lease: { lifetime: 30_000, settle: 50 }, sleep },
    stop: stop.signal,
  });
  return {
    warmed,
    events: () => entries().map(({ event }) => event),
    async [Symbol.asyncDispose]() {
      stop.abort();
      await ended;
    },
  };
}

test('one of two replicas warms at the scheduled time, and an image that fails does not keep it from the others', async () => {
  const store = memory();
  await using one = await startReplica(store);
  await using other = await startReplica(store);
  await allAsleep(2);
  pass(30_000);
  await allAsleep(2);
  assert.deepEqual([one.warmed, other.warmed], [[], []]);
  pass(MINUTE);
  await allAsleep(2);
  assert.deepEqual([...one.warmed, ...other.warmed].sort(), ['hub/broken', 'hub/one', 'hub/two']);
  const { startedAt, finishedAt, ...counts } = (await readWarmResult(store, { signal })) ?? assert.fail();
  assert.deepEqual(counts, { warm: 2, failed: 2, skipped: 1, bytes: 20 });
  assert.ok(Date.parse(startedAt) <= Date.parse(finishedAt));
  const events = [...one.events(), ...other.events()];
  assert.equal(events.filter((event) => event === 'image-not-warmed').length, 2);
  assert.equal(events.filter((event) => event === 'warming-finished').length, 1);
  for (let hour = 0; hour < 24; hour++) {
    pass(60 * MINUTE);
    await allAsleep(2);
  }
  assert.equal(one.warmed.length + other.warmed.length, 6, 'and again the next day');
});

/** The images that a replica warms within 90 s of a start at `now`, if the last run ended on 2
 *  January at 3:18. */
async function warmedAfterStart(now: Date): Promise<string[]> {
  const store = memory();
  mock.timers.setTime(now.getTime());
  const state = { owner: 'a replica', renewedAt: '', finishedAt: new Date(2026, 0, 2, 3, 18).toISOString() };
  await store.write(WARMING, bytesSource(Buffer.from(JSON.stringify(state))), { signal });
  await using replica = await startReplica(store);
  await allAsleep(1);
  pass(90_000);
  await allAsleep(1);
  return replica.warmed;
}

test('a run that was missed is made up for after the start', async () => {
  assert.equal((await warmedAfterStart(new Date(2026, 0, 3, 12))).length, 3);
});

test('nothing is made up for where nothing was missed', async () => {
  assert.equal((await warmedAfterStart(new Date(2026, 0, 2, 12))).length, 0);
});
