import { setTimeout as delay } from 'node:timers/promises';
import type { Store } from '../store/store.ts';
import type { Log } from '../telemetry/log.ts';
import type { RegistryMetrics } from '../telemetry/registry-metrics.ts';
import { readLease, takeLease, type LeaseTiming } from './lease.ts';
import type { PlannedRun } from './planned-run.ts';
import { prune, type PruneOptions, type PruneResult } from './prune.ts';

export interface ScheduleOptions {
  store: Store;
  limits: PruneOptions['limits'];
  /** The options of `prune`. */
  maxShare?: number;
  keep?: PruneOptions['keep'];
  isAbandoned?: PruneOptions['isAbandoned'];
  /** Called before each run, by the replica that prunes. */
  before?(this: void, signal: AbortSignal): Promise<unknown>;
  /** Milliseconds. */
  timing: {
    /** Before the first run: the program has other work at its start. */
    first: number;
    /** Between the end of one run, by any replica, and the next. */
    interval: number;
    lease?: LeaseTiming;
  };
  /** Where the time of the next run is kept, for display. */
  planned?: Pick<PlannedRun, 'plan'>;
  log: Log;
  metrics: Pick<RegistryMetrics, 'pruned' | 'pruningFails'>;
  stop: AbortSignal;
}

/** A replica skips its run if a run of any replica ended less than this share of the interval
 *  ago. */
export const MIN_SHARE_OF_INTERVAL = 0.8;

/** Prunes periodically until `stop` aborts; if replicas share a store, one of them does. A failed
 *  run is logged, and the next one continues its work. */
export async function pruneRegularly(options: ScheduleOptions): Promise<void> {
  const { timing, planned, log, metrics, stop } = options;
  let pause = timing.first;
  for (;;) {
    const wait = pause * (0.9 + 0.2 * Math.random());
    planned?.plan(new Date(Date.now() + wait));
    await delay(wait, undefined, { signal: stop, ref: false }).catch(() => undefined); // stopped
    if (stop.aborted) return;
    planned?.plan(undefined);
    pause = timing.interval;
    try {
      await pruneInTurn(options);
      metrics.pruningFails(false);
    } catch (error) {
      if (stop.aborted) return;
      metrics.pruningFails(true);
      log.warn({ event: 'pruning-failed', error }, 'pruning failed; the next run will continue');
    }
  }
}

async function pruneInTurn(options: ScheduleOptions): Promise<void> {
  const { store, limits, keep, isAbandoned, before, maxShare = 1, timing, log, metrics, stop } = options;
  const state = await readLease(store, { signal: stop });
  // A run of another replica counts too. The random tenths above keep the replicas' runs apart.
  if (Date.now() - Date.parse(state?.finishedAt ?? '') < timing.interval * MIN_SHARE_OF_INTERVAL) return;
  const turn = await takeLease(store, { signal: stop }, timing.lease);
  if ('holder' in turn) {
    log.debug({ event: 'pruning-elsewhere', holder: turn.holder }, 'another replica is pruning');
    return;
  }
  let finished = false;
  try {
    const started = performance.now();
    const signal = AbortSignal.any([stop, turn.lease.signal]);
    await before?.(signal);
    const result = await prune(store, {
      limits,
      maxShare,
      ...(keep === undefined ? {} : { keep }),
      ...(isAbandoned === undefined ? {} : { isAbandoned }),
      signal,
    });
    finished = true;
    metrics.pruned(result.blobs + result.records, result.bytes);
    log.info(
      { event: 'store-pruned', ...summary(result), seconds: Math.round((performance.now() - started) / 100) / 10 },
      'pruned the store',
    );
    if (result.overLimit)
      log.warn(
        { event: 'store-over-limit' },
        'the store is larger than registry.cache.maxSize, and all of it was used within the last day or two',
      );
  } finally {
    await turn.lease.release(finished);
  }
}

function summary({ images, ...rest }: PruneResult) {
  return { ...rest, images: images.length };
}
