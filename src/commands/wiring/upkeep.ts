import type { Repository } from '../../oci/reference.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { RegistryMetrics } from '../../telemetry/registry-metrics.ts';
import type { PlannedRun } from '../../upkeep/planned-run.ts';
import { pruneRegularly } from '../../upkeep/schedule.ts';
import type { Host } from '../command.ts';
import type { Images } from './images.ts';
import { createKeepOf } from './keep.ts';
import { countPodImages } from './pod-images.ts';
import { pruneLimits, pruneTiming } from './prune-limits.ts';
import type { Storage } from './storage.ts';
import { warmOnSchedule } from './warm.ts';

export interface UpkeepContext {
  images: Pick<Images, 'images' | 'applyRetention'>;
  /** Undefined: no pull secrets are read. */
  secrets: { isAbandoned(this: void, repository: Repository): boolean } | undefined;
  storage: Storage;
  counts: RegistryMetrics;
  metrics: Metrics;
  plannedPruning: PlannedRun;
}

/** Prunes, warms and counts the images of pods until `stop`. */
export async function startUpkeep(host: Host, { images, secrets, storage, counts, metrics, plannedPruning }: UpkeepContext): Promise<void> {
  const { config, env, log, stop } = host;
  const own = config.registry;
  const pruning = pruneRegularly({
    store: storage.records,
    limits: pruneLimits(own),
    maxShare: own.cache.maxPruneShare,
    keep: createKeepOf(config, { env, store: storage.records }),
    ...(secrets === undefined ? {} : { isAbandoned: secrets.isAbandoned }),
    before: images.applyRetention,
    timing: pruneTiming(own),
    planned: plannedPruning,
    log,
    metrics: counts,
    stop,
  });
  const warming = warmOnSchedule(host, { images: images.images, storage, metrics: counts });
  const counting = countPodImages(host, metrics);
  await Promise.all([pruning, warming, counting]);
}
