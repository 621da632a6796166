import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { captureLog } from '../../test/support/log.ts';
import { BLOB_MEDIA_TYPE } from '../oci/descriptor.ts';
import { digestOf } from '../oci/digest.ts';
import { isOciError, OciError, type OciErrorCode } from '../oci/error.ts';
import { parseRepository } from '../oci/reference.ts';
import type { Referrers, Registry } from '../oci/registry.ts';
import { referrerListKey } from '../store/keys.ts';
import { bytesSource, type Store } from '../store/store.ts';
import { memory } from '../testing/memory-store.ts';
import { unlimited } from '../upstream/rate-limit.ts';
import { createAccessRecords } from './access.ts';
import type { Cache } from './cache.ts';
import { createRecordStore } from './record-store.ts';
import { createReferrerLists } from './referrer-lists.ts';
import { createReferrerMemory } from './referrer-memory.ts';
import type { FreshnessPolicy } from './freshness.ts';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const REPOSITORY = parseRepository('library/nginx');
const NAME = parseRepository('hub/library/nginx');
const SUBJECT = digestOf(Buffer.from('subject'));
const signal = new AbortController().signal;

beforeEach(() => mock.timers.enable({ apis: ['Date'], now: Date.UTC(2026, 0, 1) }));
afterEach(() => mock.timers.reset());

/** `count` referrers, alternately a signature and an SBOM. */
function entries(count: number): { digest: string; artifactType: string; size: number }[] {
  return Array.from({ length: count }, (_, index) => ({
    digest: digestOf(Buffer.from(`artifact ${index}`)),
    artifactType: index % 2 === 0 ? 'application/signature' : 'application/sbom',
    size: 1,
  }));
}

/** The referrers of an image; `says` is the upstream's answer. */
async function open(options: { store?: Store; policy?: Partial<FreshnessPolicy>; isPulled?: boolean } = {}) {
  const store = options.store ?? memory();
  const { log } = await captureLog('warn');
  const records = createRecordStore(store, log);
  const access = createAccessRecords(records);
  if (options.isPulled !== false) access.grant(NAME, { digest: SUBJECT, mediaType: BLOB_MEDIA_TYPE, size: 1 });
  const policy = {
    tagTtl: MINUTE,
    staleFor: 30 * DAY,
    negativeTtl: 1000,
    onDeleted: 'forget' as const,
    credentialed: () => false,
    rateLimit: unlimited,
    ...options.policy,
  };
  const state = {
    store,
    asked: 0,
    says: entries(3) as ReturnType<typeof entries> | OciErrorCode,
    flush: () => records.flush(AbortSignal.timeout(10_000)),
    async list(artifactType?: string): Promise<[string, string[]]> {
      try {
        const { index, outcome } = await list({ repository: REPOSITORY, name: NAME }, SUBJECT, {
          signal,
          ...(artifactType === undefined ? {} : { artifactType }),
        });
        const { manifests } = JSON.parse(String(index)) as { manifests: { digest: string }[] };
        return [outcome, manifests.map(({ digest }) => digest)];
      } catch (error) {
        if (!isOciError(error)) throw error;
        return [error.code, []];
      }
    },
  };
  const referrers = (): Promise<Referrers> => {
    state.asked++;
    if (typeof state.says === 'string') return Promise.reject(new OciError(state.says, 'upstream says no'));
    const index = Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: state.says }));
    return Promise.resolve({ index, filtersApplied: false });
  };
  const registry = { referrers } as unknown as Registry;
  const cache = { records, access, log, referrers: createReferrerMemory(() => Date.now()) } as unknown as Cache;
  const list = createReferrerLists({ registry, origin: registry }, cache, policy);
  return state;
}

const digests = (count: number): string[] => entries(count).map(({ digest }) => digest);

test('promise 21: referrers are asked for once per tagTtl, whatever types clients want', async () => {
  const referrers = await open();
  assert.deepEqual(await referrers.list(), ['miss', digests(3)]);
  assert.deepEqual(await referrers.list('application/sbom'), ['hit', digests(3).slice(1, 2)]);
  assert.deepEqual(await referrers.list('application/other'), ['hit', []]);
  assert.equal(referrers.asked, 1);
  referrers.says = entries(4);
  mock.timers.tick(MINUTE);
  assert.deepEqual(await referrers.list(), ['miss', digests(4)]);
});

for (const code of ['UNAVAILABLE', 'TOOMANYREQUESTS', 'DENIED'] as const) {
  test(`promise 21: on ${code} from upstream the cached list is served until staleFor, also after a restart`, async () => {
    const before = await open();
    await before.list();
    await before.flush();
    const referrers = await open({ store: before.store });
    referrers.says = code;
    mock.timers.tick(29 * DAY);
    assert.deepEqual(await referrers.list(), ['stale', digests(3)]);
    assert.deepEqual(await referrers.list('application/signature'), ['stale', [digests(3)[0], digests(3)[2]]]);
    assert.equal(referrers.asked, 1, 'no request to upstream for a tagTtl');
    mock.timers.tick(2 * DAY);
    assert.deepEqual(await referrers.list(), [code, []]);
  });
}

test('promise 21: upstream refuses its credentials: the cached list is served for an hour', async () => {
  const referrers = await open({ policy: { credentialed: () => true } });
  await referrers.list();
  referrers.says = 'DENIED';
  mock.timers.tick(59 * MINUTE);
  assert.deepEqual(await referrers.list(), ['stale', digests(3)]);
  mock.timers.tick(2 * MINUTE);
  assert.deepEqual(await referrers.list(), ['DENIED', []]);
});

test('promise 21: an image deleted upstream keeps its referrers with onDeleted: serve, and loses them without it', async () => {
  const forgetful = await open();
  const lasting = await open({ policy: { onDeleted: 'serve' } });
  for (const referrers of [forgetful, lasting]) await referrers.list();
  for (const says of [[], 'NAME_UNKNOWN'] as const) {
    mock.timers.tick(MINUTE);
    for (const referrers of [forgetful, lasting]) referrers.says = says === 'NAME_UNKNOWN' ? says : [];
    assert.deepEqual((await lasting.list())[1], digests(3));
    assert.deepEqual((await forgetful.list())[1], []);
  }
});

test('promise 21: a list of megabytes is kept, too', async () => {
  const before = await open();
  before.says = entries(8000);
  await before.list();
  await before.flush();
  const referrers = await open({ store: before.store });
  referrers.says = 'UNAVAILABLE';
  mock.timers.tick(DAY);
  assert.deepEqual(await referrers.list(), ['stale', digests(8000)]);
});

test('a request for the referrers of a digest that was never pulled writes no record', async () => {
  const referrers = await open({ isPulled: false });
  referrers.says = [];
  assert.deepEqual(await referrers.list(), ['miss', []]);
  await referrers.flush();
  assert.equal(await referrers.store.stat(referrerListKey(NAME, SUBJECT), { signal }), undefined);
});

test('promise 21: an imported list of referrers never expires, not even if upstream is down, lists no referrers or does not have the image', async () => {
  const store = memory();
  const index = { schemaVersion: 2, manifests: entries(2) };
  const record = { checkedAt: new Date().toISOString(), imported: true, index };
  await store.write(referrerListKey(NAME, SUBJECT), bytesSource(Buffer.from(JSON.stringify(record))), { signal });
  mock.timers.tick(400 * DAY);
  const imported = entries(2).map(({ digest }) => digest);
  for (const says of ['UNAVAILABLE', 'MANIFEST_UNKNOWN', []] as const) {
    const it = await open({ store });
    it.says = typeof says === 'string' ? says : [...says];
    assert.deepEqual((await it.list())[1], imported, String(says));
    await it.flush();
  }
  const it = await open({ store });
  mock.timers.tick(2 * MINUTE);
  assert.deepEqual(
    (await it.list())[1],
    entries(3).map(({ digest }) => digest),
    'a list of upstream replaces it',
  );
});
