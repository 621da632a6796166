import { Cron } from 'croner';
import { setTimeout as delay } from 'node:timers/promises';
import { json } from 'node:stream/consumers';
import { inParallel } from '../async/parallel.ts';
import { fieldsOf, textOf } from '../io/untrusted.ts';
import { OciError } from '../oci/error.ts';
import type { Reference, Repository } from '../oci/reference.ts';
import { WARMED, WARMING } from '../store/keys.ts';
import { bytesSource, type Store, type StoreContext } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { readLease, takeLease, type LeaseTiming } from './lease.ts';
import type { Warmed } from './warm.ts';

/** An image to warm. */
export interface WarmTarget {
  /** The image as written in the configuration or the pod. */
  image: string;
  /** The image as the registry names it; undefined: the registry does not serve it. */
  located: { repository: Repository; reference: Reference } | undefined;
  /** The configuration names it; the others are images of pods, which may come from any
   *  registry. */
  isConfigured: boolean;
}

export interface WarmScheduleOptions {
  /** The store that all replicas share. */
  store: Store;
  /** Five fields, as in cron. */
  schedule: string;
  /** Called at each run. */
  targets(this: void, signal: AbortSignal): Promise<readonly WarmTarget[]>;
  /** Called at each run; returns a function that fetches an image, and throws OciError if that
   *  fails. */
  begin(this: void, signal: AbortSignal): (located: NonNullable<WarmTarget['located']>) => Promise<Warmed>;
  log: Log;
  metrics: Pick<RegistryMetrics, 'warmed'>;
  stop: AbortSignal;
  /** For tests: the timing of the lease, and a function that waits this many ms or until the signal
   *  is aborted. */
  timing?: { lease?: LeaseTiming; sleep?: Sleep };
}

type Sleep = (milliseconds: number, signal: AbortSignal) => Promise<void>;

/** The result of the last run of any replica, as `cache stat` shows it. */
export interface WarmResult {
  /** ISO 8601. */
  startedAt: string;
  finishedAt: string;
  /** The number of warm images. */
  warm: number;
  /** Images that could not be fetched completely. */
  failed: number;
  /** Images that the registry does not serve. */
  skipped: number;
  /** Bytes that were read. */
  bytes: number;
}

/** Images warmed concurrently: each fetches its blobs over several connections. */
const IMAGES_AT_ONCE = 2;
/** The delay of a missed run after the start, when the program has other work, in ms. */
const CATCH_UP_AFTER_MS = 60_000;
/** Timers cannot wait for longer than 24 days, and clocks are corrected. */
const LONGEST_SLEEP_MS = 3_600_000;
/** The maximum size of a result, in bytes. */
const MAX_RESULT_SIZE = 65_536;

/** Fetches images by a schedule until `stop` aborts; if replicas share a store, one of them does. A
 *  run that was missed, because no replica ran at that time, is made up for after the start. */
export async function warmRegularly(options: WarmScheduleOptions): Promise<void> {
  const { store, schedule, timing, log, stop } = options;
  const cron = new Cron(schedule, { mode: '5-part', paused: true });
  let due = (await isMissed(store, cron, stop)) ? new Date(Date.now() + CATCH_UP_AFTER_MS) : cron.nextRun(new Date());
  while (due !== null) {
    await sleepUntil(due, timing?.sleep ?? sleep, stop);
    if (stop.aborted) return;
    try {
      await warmInTurn(due, options);
    } catch (error) {
      if (!stop.aborted) log.warn({ event: 'warming-failed', error }, 'warming failed; will retry at the next scheduled time');
    }
    due = cron.nextRun(new Date(Math.max(Date.now(), due.getTime())));
  }
}

/** When images are fetched next by `schedule`; null: never. */
export function nextWarming(schedule: string): Date | null {
  return new Cron(schedule, { mode: '5-part', paused: true }).nextRun(new Date());
}

async function isMissed(store: Store, cron: Cron, signal: AbortSignal): Promise<boolean> {
  const state = await readLease(store, { signal }, WARMING).catch(() => undefined);
  const finished = Date.parse(state?.finishedAt ?? '');
  if (Number.isNaN(finished)) return false;
  const next = cron.nextRun(new Date(finished));
  return next !== null && next.getTime() < Date.now();
}

async function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  await delay(milliseconds, undefined, { signal, ref: false }).catch(() => undefined); // stopped
}

async function sleepUntil(due: Date, wait: Sleep, signal: AbortSignal): Promise<void> {
  for (let left = due.getTime() - Date.now(); left > 0 && !signal.aborted; left = due.getTime() - Date.now()) {
    await wait(Math.min(left, LONGEST_SLEEP_MS), signal);
  }
}

async function warmInTurn(due: Date, options: WarmScheduleOptions): Promise<void> {
  const { store, timing, log, stop } = options;
  const state = await readLease(store, { signal: stop }, WARMING);
  // Another replica, whose clock may be ahead of this one's, has already done it.
  if (Date.parse(state?.finishedAt ?? '') >= due.getTime()) return;
  const turn = await takeLease(store, { signal: stop }, { ...timing?.lease, key: WARMING });
  if ('holder' in turn) {
    log.debug({ event: 'warming-elsewhere', holder: turn.holder }, 'another replica is warming');
    return;
  }
  let finished = false;
  try {
    await warmAll(AbortSignal.any([stop, turn.lease.signal]), options);
    finished = true;
  } finally {
    await turn.lease.release(finished);
  }
}

async function warmAll(signal: AbortSignal, { store, targets, begin, log, metrics }: WarmScheduleOptions): Promise<void> {
  const startedAt = new Date();
  const wanted = await targets(signal);
  const warm = begin(signal);
  const result = { warm: 0, failed: 0, skipped: 0, bytes: 0 };
  log.info({ event: 'warming-started', images: wanted.length }, 'warming started: fetching the images of registry.warm');
  await inParallel(wanted, IMAGES_AT_ONCE, async ({ image, located, isConfigured }) => {
    if (located === undefined && !isConfigured) {
      result.skipped++;
      return;
    }
    const started = performance.now();
    try {
      if (located === undefined) throw new OciError('NAME_UNKNOWN', `no upstream has the host of ${image}, or it is not an image name`);
      const { referrersError, ...warmed } = await warm(located);
      result.warm++;
      result.bytes += warmed.bytes;
      log.info({ event: 'image-warmed', image, ...warmed, seconds: secondsSince(started) }, 'warmed an image');
      if (referrersError !== undefined) {
        log.warn(
          { event: 'referrers-not-warmed', image, error: referrersError },
          'warmed an image, but could not fetch all of its referrers',
        );
      }
    } catch (error) {
      signal.throwIfAborted();
      result.failed++;
      log.warn({ event: 'image-not-warmed', image, error }, 'could not warm an image');
    }
  });
  const finishedAt = new Date();
  const record: WarmResult = { startedAt: startedAt.toISOString(), finishedAt: finishedAt.toISOString(), ...result };
  await store.write(WARMED, bytesSource(Buffer.from(JSON.stringify(record))), { signal });
  metrics.warmed(result);
  const seconds = Math.round((finishedAt.getTime() - startedAt.getTime()) / 100) / 10;
  log.info({ event: 'warming-finished', ...result, seconds }, 'warming finished');
}

function secondsSince(started: number): number {
  return Math.round((performance.now() - started) / 100) / 10;
}

/** Undefined: nothing has been warmed by a schedule yet, or the record is damaged. @throws OciError
 *  UNAVAILABLE */
export async function readWarmResult(store: Store, context: StoreContext): Promise<WarmResult | undefined> {
  const found = await store.read(WARMED, context);
  if (found === undefined || found.size > MAX_RESULT_SIZE) return undefined;
  try {
    const record = fieldsOf(await json(found.body));
    const [startedAt, finishedAt] = [textOf(record['startedAt']), textOf(record['finishedAt'])];
    if (startedAt === undefined || finishedAt === undefined) return undefined;
    const count = (name: string): number => (typeof record[name] === 'number' ? record[name] : 0);
    return { startedAt, finishedAt, warm: count('warm'), failed: count('failed'), skipped: count('skipped'), bytes: count('bytes') };
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
