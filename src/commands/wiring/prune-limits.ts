import { statfs } from 'node:fs/promises';
import type { RegistryConfig } from '../../config/schema.ts';
import type { Limits } from '../../upkeep/plan.ts';
import type { ScheduleOptions } from '../../upkeep/schedule.ts';

const HOUR = 3_600_000;
/** What was stored or pulled within this time stays, whatever the limits say (promise 13). */
const GRACE = 24 * HOUR;
/** Of the volume, where nothing else is said. */
const SHARE = 0.8;

/** What the configuration lets stay. `registry.cache.maxSize` 0 means no limit in S3, and on a
 *  filesystem 80 % of what the volume has besides the files of others. */
export function pruneLimits({ cache, storage }: Pick<RegistryConfig, 'cache' | 'storage'>): (stored: number) => Promise<Limits> {
  return async (stored) => ({
    now: Date.now(),
    grace: GRACE,
    maxAge: cache.maxAge,
    maxSize:
      cache.maxSize > 0 || storage.filesystem === undefined ? cache.maxSize : await volumeLimit(storage.filesystem.directory, stored),
  });
}

async function volumeLimit(directory: string, stored: number): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return Math.floor(SHARE * (stored + bavail * bsize));
}

/** A volume fills up; a bucket only costs, and so does each look at all of it. */
export function pruneTiming({ storage }: Pick<RegistryConfig, 'storage'>): ScheduleOptions['timing'] {
  return { first: 5 * 60_000, interval: storage.filesystem === undefined ? 6 * HOUR : HOUR };
}
