import assert from 'node:assert/strict';
import { once } from 'node:events';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { raceAbort } from '../async/race-abort.ts';
import { digestOf, type Digest } from '../oci/digest.ts';
import { isOciError, OciError, type OciErrorCode, type OciErrorOptions } from '../oci/error.ts';
import { parseRepository, parseTag } from '../oci/reference.ts';
import { memory } from '../testing/memory-store.ts';
import { noRegistryMetrics } from '../telemetry/registry-metrics.ts';
import { createRateLimit, unlimited } from '../upstream/rate-limit.ts';
import { createRecordStore } from './record-store.ts';
import { tagKey } from '../store/keys.ts';
import { bytesSource, type Store } from '../store/store.ts';
import type { FreshnessPolicy } from './freshness.ts';
import { countGone, createTagMemory } from './tag-memory.ts';
import { createTags } from './tags.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const [ONE, TWO] = ['one', 'two'].map((text) => digestOf(Buffer.from(text))) as [Digest, Digest];
const REPOSITORY = parseRepository('hub/library/nginx');
const TAG = parseTag('1');
const signal = new AbortController().signal;

beforeEach(() => mock.timers.enable({ apis: ['Date'], now: Date.UTC(2026, 0, 1) }));
afterEach(() => mock.timers.reset());

/** A tag; `says` is the upstream's answer. Counts the requests to the upstream. */
async function openTag(options: { policy?: Partial<FreshnessPolicy>; store?: Store; now?: () => number } = {}) {
  const captured = await captureLog('warn');
  const { log } = captured;
  const records = createRecordStore(options.store ?? memory(), log);
  const policy = {
    tagTtl: MINUTE,
    staleFor: 30 * DAY,
    negativeTtl: 10_000,
    onDeleted: 'forget' as const,
    credentialed: () => false,
    rateLimit: unlimited,
    ...options.policy,
  };
  const tagMemory = createTagMemory(options.now ?? (() => Date.now()));
  const tags = createTags({ memory: tagMemory, records, policy, log });
  const state = {
    says: ONE as Digest | OciError,
    fetchFails: undefined as OciError | undefined,
    asked: 0,
    kept: true,
    /** Settles before an answer arrives. */
    answering: Promise.resolve(),
    gone: () => countGone(tagMemory).get('hub') ?? 0,
    fetched: [] as Digest[],
    warnings: () => captured.entries().length,
    records,
    async resolve(): Promise<{ digest: Digest; stale: boolean } | OciErrorCode> {
      const question = {
        async ask() {
          state.asked++;
          await state.answering;
          if (state.says instanceof OciError) throw state.says;
          return { digest: state.says };
        },
        fetchManifest(digest: Digest) {
          state.fetched.push(digest);
          return state.fetchFails === undefined ? Promise.resolve() : Promise.reject(state.fetchFails);
        },
        isKept: () => Promise.resolve(state.kept),
      };
      try {
        return await tags.resolve(REPOSITORY, TAG, question, signal);
      } catch (error) {
        if (!isOciError(error)) throw error;
        return error.code;
      }
    },
  };
  return state;
}

const failure = (code: OciErrorCode, options: OciErrorOptions = {}) => new OciError(code, 'upstream says no', options);
const fresh = (digest: Digest) => ({ digest, stale: false });
const stale = (digest: Digest) => ({ digest, stale: true });

test('promise 8: upstream is asked once per tagTtl, and the first request after it sees that the tag has moved', async () => {
  const tag = await openTag();
  for (let pull = 0; pull < 20; pull++) assert.deepEqual(await tag.resolve(), fresh(ONE));
  assert.equal(tag.asked, 1);
  tag.says = TWO;
  mock.timers.tick(MINUTE - 1);
  assert.deepEqual(await tag.resolve(), fresh(ONE));
  mock.timers.tick(3 * DAY);
  assert.deepEqual(await tag.resolve(), fresh(TWO));
  assert.equal(tag.asked, 2);
  assert.deepEqual(tag.fetched, [TWO], 'its manifest was fetched before');
});

for (const code of ['UNAVAILABLE', 'TOOMANYREQUESTS', 'UNAUTHORIZED', 'DENIED', 'MANIFEST_INVALID'] as const) {
  test(`promise 8: on ${code} from upstream the cached tag is served until staleFor, and the log says so`, async () => {
    const tag = await openTag();
    await tag.resolve();
    tag.says = failure(code);
    mock.timers.tick(29 * DAY);
    assert.deepEqual(await tag.resolve(), stale(ONE));
    assert.equal(tag.warnings(), 1);
    assert.deepEqual(await tag.resolve(), stale(ONE));
    assert.equal(tag.asked, 2, 'no request to upstream for a tagTtl');
    mock.timers.tick(2 * DAY);
    assert.equal(await tag.resolve(), code);
    tag.says = TWO;
    mock.timers.tick(MINUTE);
    assert.deepEqual(await tag.resolve(), fresh(TWO));
  });
}

test('promise 8: on 401 and 403 of an upstream with credentials the cached tag is served for an hour', async () => {
  const tag = await openTag({ policy: { credentialed: (repository) => repository === REPOSITORY } });
  await tag.resolve();
  tag.says = failure('DENIED');
  mock.timers.tick(59 * MINUTE);
  assert.deepEqual(await tag.resolve(), stale(ONE));
  mock.timers.tick(2 * MINUTE);
  assert.equal(await tag.resolve(), 'DENIED');
});

test('promise 8: a revoked right to read stays revoked until the upstream confirms the tag again', async () => {
  const store = memory();
  const policy = { credentialed: () => true };
  const tag = await openTag({ policy, store });
  await tag.resolve();
  tag.says = failure('UNAUTHORIZED');
  mock.timers.tick(61 * MINUTE);
  assert.equal(await tag.resolve(), 'UNAUTHORIZED');
  for (const says of [failure('UNAVAILABLE'), failure('TOOMANYREQUESTS', { retryAfter: 1 })]) {
    tag.says = says;
    mock.timers.tick(2 * MINUTE);
    assert.equal(await tag.resolve(), says.code, 'not brought back by an outage or a rate limit');
  }
  await tag.records.flush(signal);
  const restarted = await openTag({ policy, store });
  restarted.says = failure('UNAVAILABLE');
  assert.equal(await restarted.resolve(), 'UNAVAILABLE', 'a restart does not change it');
  restarted.says = ONE;
  mock.timers.tick(2 * MINUTE);
  assert.deepEqual(await restarted.resolve(), fresh(ONE));
  restarted.says = failure('UNAVAILABLE');
  mock.timers.tick(3 * HOUR);
  assert.deepEqual(await restarted.resolve(), stale(ONE), 'confirmed again, it is served during outages again');
});

test('promise 8: the age of a record with a future date is unknown, so upstream is asked', async () => {
  const store = memory();
  const ahead = await openTag({ store });
  mock.timers.tick(300 * DAY);
  await ahead.resolve();
  await ahead.records.flush(signal);
  mock.timers.setTime(Date.UTC(2026, 0, 1));
  const tag = await openTag({ store });
  tag.says = failure('UNAVAILABLE');
  assert.deepEqual(await tag.resolve(), stale(ONE));
  tag.says = TWO;
  mock.timers.tick(MINUTE);
  assert.deepEqual(await tag.resolve(), fresh(TWO));
});

test('promise 8: a wall clock that is set back keeps no tag as it was, nor absent', async () => {
  let now = 0;
  const tag = await openTag({ now: () => now });
  assert.deepEqual(await tag.resolve(), fresh(ONE));
  mock.timers.setTime(Date.UTC(2025, 11, 31));
  tag.says = failure('MANIFEST_UNKNOWN');
  now += MINUTE;
  assert.equal(await tag.resolve(), 'MANIFEST_UNKNOWN');
  tag.says = TWO;
  now += 10_000;
  assert.deepEqual(await tag.resolve(), fresh(TWO));
});

test('promise 8: a tag deleted upstream is absent at once, and looked up again after negativeTtl', async () => {
  const tag = await openTag();
  await tag.resolve();
  tag.says = failure('MANIFEST_UNKNOWN');
  mock.timers.tick(MINUTE);
  for (let pull = 0; pull < 5; pull++) assert.equal(await tag.resolve(), 'MANIFEST_UNKNOWN');
  assert.equal(tag.asked, 2);
  tag.says = ONE;
  mock.timers.tick(10_000);
  assert.deepEqual(await tag.resolve(), fresh(ONE));
});

test('no other failure is remembered of a tag that is not known', async () => {
  const tag = await openTag();
  for (const code of ['UNAVAILABLE', 'TOOMANYREQUESTS', 'UNAUTHORIZED', 'DENIED', 'MANIFEST_INVALID'] as const) {
    tag.says = failure(code, { retryAfter: 100 });
    assert.equal(await tag.resolve(), code);
  }
  assert.equal(tag.asked, 5);
  tag.says = ONE;
  assert.deepEqual(await tag.resolve(), fresh(ONE));
});

test('Retry-After is obeyed up to a limit', async () => {
  const tag = await openTag();
  await tag.resolve();
  mock.timers.tick(MINUTE);
  tag.says = failure('TOOMANYREQUESTS', { retryAfter: 600 });
  await tag.resolve();
  tag.says = failure('TOOMANYREQUESTS', { retryAfter: 1e12 });
  mock.timers.tick(9 * MINUTE);
  assert.deepEqual(await tag.resolve(), stale(ONE));
  assert.equal(tag.asked, 2);
  mock.timers.tick(MINUTE);
  await tag.resolve();
  tag.says = TWO;
  mock.timers.tick(HOUR);
  assert.deepEqual(await tag.resolve(), fresh(TWO));
});

test('a moved tag keeps its old digest until the new manifest can be fetched', async () => {
  const tag = await openTag();
  await tag.resolve();
  tag.says = TWO;
  for (const code of ['TOOMANYREQUESTS', 'MANIFEST_UNKNOWN'] as const) {
    tag.fetchFails = failure(code);
    mock.timers.tick(MINUTE);
    assert.deepEqual(await tag.resolve(), stale(ONE), code);
  }
  tag.fetchFails = undefined;
  mock.timers.tick(MINUTE);
  assert.deepEqual(await tag.resolve(), fresh(TWO));
});

test('a new process reads tags that an earlier one has stored, without asking upstream', async () => {
  const store = memory();
  const first = await openTag({ store });
  await first.resolve();
  await first.records.flush(signal);
  const second = await openTag({ store });
  mock.timers.tick(MINUTE - 1);
  assert.deepEqual(await second.resolve(), fresh(ONE));
  assert.equal(second.asked, 0);
  second.says = failure('UNAVAILABLE');
  mock.timers.tick(DAY);
  assert.deepEqual(await second.resolve(), stale(ONE));
});

test('promise 8: concurrent requests for a tag share one lookup', async () => {
  const tag = await openTag();
  const all = Array.from({ length: 10 }, () => tag.resolve());
  for (const one of all) assert.deepEqual(await one, fresh(ONE));
  assert.equal(tag.asked, 1);
});

test('when few pulls are left, cached tags are not checked upstream; later one request updates the count', async () => {
  const rateLimit = createRateLimit('hub', noRegistryMetrics);
  const signal = new AbortController().signal;
  const refuse = async (retryAfter: number) => {
    const settle = await rateLimit.enter('manifests', '', { signal, deadline: signal });
    settle(new OciError('TOOMANYREQUESTS', 'upstream is asked too often', { retryAfter }));
  };
  const tag = await openTag({ policy: { rateLimit } });
  await tag.resolve();
  tag.says = TWO;
  rateLimit.observe({ 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '5;w=21600' });
  mock.timers.tick(4 * MINUTE);
  assert.deepEqual(await tag.resolve(), stale(ONE));
  assert.equal(tag.asked, 1);
  mock.timers.tick(2 * MINUTE);
  assert.deepEqual(await tag.resolve(), fresh(TWO));

  await refuse(600);
  mock.timers.tick(9 * MINUTE);
  assert.deepEqual(await tag.resolve(), stale(TWO));
  assert.equal(tag.asked, 2);
  mock.timers.tick(MINUTE);
  assert.deepEqual(await tag.resolve(), fresh(TWO));

  await refuse(40 * 24 * 3600);
  mock.timers.tick(HOUR);
  assert.deepEqual(await tag.resolve(), fresh(TWO), 'limits are heeded for an hour at most');
  rateLimit.observe({ 'ratelimit-limit': '100', 'ratelimit-remaining': '0' });
  mock.timers.tick(MINUTE);
  rateLimit.observe({ 'ratelimit-limit': '100', 'ratelimit-remaining': '60' });
  assert.deepEqual(await tag.resolve(), fresh(TWO), 'enough requests are left again');
  assert.equal(tag.asked, 5);
});

test('tags older than staleFor are checked upstream, even if few pulls are left', async () => {
  const tag = await openTag({ policy: { rateLimit: { ...unlimited, blockedUntil: () => Infinity } } });
  await tag.resolve();
  mock.timers.tick(31 * DAY);
  assert.deepEqual(await tag.resolve(), fresh(ONE));
});

test('promise 8: with onDeleted: serve, a tag deleted upstream is served for as long as its image is kept', async () => {
  const store = memory();
  const policy = { onDeleted: 'serve' as const };
  const tag = await openTag({ policy, store });
  await tag.resolve();
  tag.says = failure('MANIFEST_UNKNOWN');
  mock.timers.tick(MINUTE);
  for (let pull = 0; pull < 5; pull++) assert.deepEqual(await tag.resolve(), stale(ONE));
  assert.deepEqual([tag.asked, tag.gone()], [2, 1], 'upstream is asked once per tagTtl, and the metric counts the tag');
  mock.timers.tick(100 * DAY);
  tag.says = failure('UNAVAILABLE');
  assert.deepEqual(await tag.resolve(), stale(ONE), 'staleFor does not apply');
  await tag.records.flush(signal);

  const restarted = await openTag({ policy, store });
  restarted.says = failure('MANIFEST_UNKNOWN');
  assert.deepEqual(await restarted.resolve(), stale(ONE), 'a restart does not change it');
  restarted.says = TWO;
  mock.timers.tick(MINUTE);
  assert.deepEqual(await restarted.resolve(), fresh(TWO), 'pushed again, the tag points to the digest of upstream');
  assert.equal(restarted.gone(), 0);
  restarted.says = failure('MANIFEST_UNKNOWN');
  restarted.kept = false;
  mock.timers.tick(MINUTE);
  assert.equal(await restarted.resolve(), 'MANIFEST_UNKNOWN', 'pruned');
});

test('promise 8: a tag that was deleted upstream is served for an hour after the upstream has refused the credentials', async () => {
  const tag = await openTag({ policy: { onDeleted: 'serve', credentialed: () => true } });
  await tag.resolve();
  tag.says = failure('MANIFEST_UNKNOWN');
  mock.timers.tick(MINUTE);
  assert.deepEqual(await tag.resolve(), stale(ONE));
  tag.says = failure('DENIED');
  mock.timers.tick(59 * MINUTE);
  assert.deepEqual(await tag.resolve(), stale(ONE));
  mock.timers.tick(2 * MINUTE);
  assert.equal(await tag.resolve(), 'DENIED');
});

/** The record that `cache import` writes. */
async function importTag(store: Store, digest: Digest): Promise<void> {
  const record = { digest, checkedAt: new Date().toISOString(), imported: true };
  await store.write(tagKey(REPOSITORY, TAG), bytesSource(Buffer.from(JSON.stringify(record))), { signal });
}

test('an imported tag never expires, and while its upstream does not answer, it is asked in the background', async () => {
  const store = memory();
  await importTag(store, ONE);
  const tag = await openTag({ store });
  assert.deepEqual(await tag.resolve(), fresh(ONE));
  tag.says = failure('UNAVAILABLE');
  mock.timers.tick(365 * DAY);
  assert.deepEqual(await tag.resolve(), stale(ONE));
  mock.timers.tick(MINUTE);
  tag.says = TWO;
  const { promise, resolve } = Promise.withResolvers<undefined>();
  tag.answering = promise.then(() => undefined);
  assert.deepEqual(await tag.resolve(), stale(ONE), 'the pull does not wait');
  resolve(undefined);
  await new Promise(setImmediate);
  assert.deepEqual(await tag.resolve(), fresh(TWO), 'the answer is reused for the next one');
});

for (const code of ['MANIFEST_UNKNOWN', 'UNAVAILABLE', 'DENIED'] as const) {
  test(`a tag that is imported again is seen while upstream says ${code}`, async () => {
    const store = memory();
    const tag = await openTag({ store });
    await tag.resolve();
    await tag.records.flush(signal);
    tag.says = failure(code);
    mock.timers.tick(MINUTE);
    await importTag(store, TWO);
    assert.deepEqual(await tag.resolve(), stale(TWO));
    mock.timers.tick(MINUTE);
    await importTag(store, ONE);
    assert.deepEqual(await tag.resolve(), stale(ONE));
    await tag.records.flush(signal);
    const restarted = await openTag({ store });
    restarted.says = failure(code);
    mock.timers.tick(365 * DAY);
    assert.deepEqual(await restarted.resolve(), stale(ONE));
  });
}

test('a request is cancelled once its last caller has left; the upstream does not count as failed, and the tag is requested again', async () => {
  const { log } = await captureLog('warn');
  const policy = {
    tagTtl: MINUTE,
    staleFor: 30 * DAY,
    negativeTtl: 10_000,
    onDeleted: 'forget' as const,
    credentialed: () => false,
    rateLimit: unlimited,
  };
  const tags = createTags({ memory: createTagMemory(() => Date.now()), records: createRecordStore(memory(), log), policy, log });
  const asked: AbortSignal[] = [];
  let isSilent = false;
  const question = {
    ask(_: boolean, questionSignal: AbortSignal) {
      asked.push(questionSignal);
      return isSilent ? raceAbort(new Promise<never>(() => undefined), questionSignal) : Promise.resolve({ digest: ONE });
    },
    fetchManifest: () => Promise.resolve(),
    isKept: () => Promise.resolve(true),
  };
  await tags.resolve(REPOSITORY, TAG, question, signal);
  mock.timers.tick(2 * MINUTE);
  isSilent = true;
  const [first, second] = [new AbortController(), new AbortController()];
  const waiting = [first, second].map((client) => tags.resolve(REPOSITORY, TAG, question, client.signal));
  const gone = Promise.allSettled(waiting);
  await new Promise((resolve) => setImmediate(resolve));
  first.abort(new Error('left'));
  second.abort(new Error('left too'));
  assert.deepEqual(
    (await gone).map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  assert.equal(asked.length, 2);
  if (asked[1]?.aborted === false) await once(asked[1], 'abort', { signal: AbortSignal.timeout(10_000) });
  await new Promise((resolve) => setImmediate(resolve));
  isSilent = false;
  assert.deepEqual(await tags.resolve(REPOSITORY, TAG, question, signal), fresh(ONE));
  assert.equal(asked.length, 3);
});
