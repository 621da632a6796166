import type { Store } from '../../store/store.ts';
import { readLease } from '../../upkeep/lease.ts';
import type { PlannedRun } from '../../upkeep/planned-run.ts';
import { MIN_SHARE_OF_INTERVAL } from '../../upkeep/schedule.ts';
import { nextWarming, readWarmResult } from '../../upkeep/warm-schedule.ts';
import { upkeepSchema, type Upkeep } from '../api/upkeep.ts';
import type { ApiHandlers } from '../api-server.ts';
import type { OtherReplicas } from '../replicas.ts';

export interface UpkeepOptions {
  /** The store that all replicas share. */
  store: Store;
  pruning: {
    /** The next pruning of this replica. */
    planned: PlannedRun;
    /** Milliseconds. */
    interval: number;
  };
  /** Undefined: no images are fetched on a schedule. */
  warming: { schedule: string } | undefined;
  replicas: OtherReplicas;
}

/** The times of automatic pruning and warming. */
export function createUpkeepHandlers({ store, pruning, warming, replicas }: UpkeepOptions): Pick<ApiHandlers, 'upkeep'> {
  async function describeWarming(signal: AbortSignal): Promise<Upkeep['warming']> {
    if (warming === undefined) return null;
    const { schedule } = warming;
    const { finishedAt = null, warm = 0, failed = 0, skipped = 0 } = (await readWarmResult(store, { signal })) ?? {};
    return { schedule, lastAt: finishedAt, nextAt: nextWarming(schedule)?.toISOString() ?? null, warm, failed, skipped };
  }

  return {
    async upkeep({ alone, signal }) {
      const own = pruning.planned.at()?.toISOString() ?? null;
      const everyMs = pruning.interval;
      if (alone) return { pruning: { everyMs, lastAt: null, nextAt: own }, warming: null, unreachable: [] };
      const [{ answers, unreachable }, lease, warmed] = await Promise.all([
        replicas.ask('/api/upkeep', upkeepSchema, { signal }),
        readLease(store, { signal }),
        describeWarming(signal),
      ]);
      const finishedAt = lease?.finishedAt ?? '';
      const planned = [own, ...answers.map(({ answer }) => answer.pruning.nextAt)].flatMap((at) => (at === null ? [] : [Date.parse(at)]));
      const next = nextPruning(planned, { last: Date.parse(finishedAt), everyMs });
      return {
        pruning: {
          everyMs,
          lastAt: finishedAt === '' ? null : finishedAt,
          nextAt: next === undefined ? null : new Date(next).toISOString(),
        },
        warming: warmed,
        unreachable,
      };
    },
  };
}

/** A replica skips a run that comes too soon after a run of any replica. */
function nextPruning(planned: readonly number[], { last, everyMs }: { last: number; everyMs: number }): number | undefined {
  const turns = planned.map((at) => (at - last < everyMs * MIN_SHARE_OF_INTERVAL ? at + everyMs : at));
  return turns.length === 0 ? undefined : Math.min(...turns);
}
