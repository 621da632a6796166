import { statfs } from 'node:fs/promises';
import type { RegistryConfig } from '../../config/schema.ts';
import type { Limits } from '../../upkeep/plan.ts';
import type { ScheduleOptions } from '../../upkeep/schedule.ts';

const HOUR = 3_600_000;
/** Content that was stored or pulled within this time stays, whatever the limits (promise 13). */
const GRACE = 24 * HOUR;
/** The share of the volume, by default. */
const SHARE = 0.8;

/** The limits of the configuration. `registry.cache.maxSize` 0 means no limit in S3, and on a
 *  filesystem 80 % of the volume minus other files. */
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

/** A full volume is a problem; a full bucket only costs money, as does each listing of it, so a
 *  bucket is pruned less often. */
export function pruneTiming({ storage }: Pick<RegistryConfig, 'storage'>): ScheduleOptions['timing'] {
  return { first: 5 * 60_000, interval: storage.filesystem === undefined ? 6 * HOUR : HOUR };
}
