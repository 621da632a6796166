import { z } from 'zod';
import { count, time, unreachable } from './common.ts';

export const upkeepSchema = z
  .strictObject({
    pruning: z.strictObject({
      everyMs: count.describe('The time between two prunings.'),
      lastAt: time.nullable().describe('When a replica last finished a pruning; null: never.'),
      nextAt: time
        .nullable()
        .describe('When the next pruning begins, give or take a tenth of everyMs; null: it runs now, or is not planned yet.'),
    }),
    warming: z
      .strictObject({
        schedule: z.string().describe('registry.warm.schedule.'),
        lastAt: time.nullable().describe('When the last warming finished; null: it has not run.'),
        nextAt: time.nullable(),
        warm: count.describe('Images that the last run has fetched or found stored.'),
        failed: count,
        skipped: count.describe('Images that no upstream serves.'),
      })
      .nullable()
      .describe('null: registry.warm names no images.'),
    unreachable,
  })
  .describe('The automatic tasks of the registry, and their times.');
export type Upkeep = z.output<typeof upkeepSchema>;
