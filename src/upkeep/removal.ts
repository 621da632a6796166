import { inParallel } from '../async/parallel.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { beginSweep, type Claims } from '../store/claims.ts';
import type { Store, StoreContext } from '../store/store.ts';
import type { Image, Inventory } from './inventory.ts';
import type { Limits } from './plan.ts';

/** One run of pruning. */
export interface Run {
  store: Store;
  inventory: Inventory;
  limits: Limits;
  dryRun: boolean;
  context: StoreContext;
  parallel: number;
  /** Images that must stay. */
  kept: { has(image: Image): boolean };
  /** Of `PruneOptions`. */
  isAbandoned(this: void, repository: Repository): boolean;
  /** Manifests whose records have appeared since the inventory began. */
  arrived: ReadonlySet<Digest>;
  /** Records removed so far. */
  records: number;
  /** The claims of concurrent pushes. */
  claims: Claims;
}

const DAY = 86_400_000;
/** The number of digests announced to pushes at once. */
const SWEPT_AT_ONCE = 500;

export async function removeRecord(run: Run, key: string): Promise<void> {
  run.records++;
  if (!run.dryRun) await run.store.remove(key, run.context);
}

/** Whether an object is older than the grace. */
export function isOld({ limits }: Run, modified: number): boolean {
  return limits.now - modified >= limits.grace;
}

/** The days whose records may show a use within the grace. */
export function recentDays({ limits }: Run): Date[] {
  const days: Date[] = [];
  for (let day = limits.now - (limits.now % DAY); day + DAY > limits.now - limits.grace; day -= DAY) days.push(new Date(day));
  return days;
}

/** Removes items in batches, unless a push has claimed their digests in the meantime
 *  (store/claims.ts). The next run finds the rest. */
export async function sweep<Item>(
  run: Run,
  items: AsyncIterable<Item> | Iterable<Item>,
  digestOf: (item: Item) => Digest,
  remove: (item: Item) => Promise<void>,
): Promise<void> {
  let batch: Item[] = [];
  for await (const item of items) {
    batch.push(item);
    if (batch.length < SWEPT_AT_ONCE) continue;
    await sweepBatch(run, batch, digestOf, remove);
    batch = [];
  }
  if (batch.length > 0) await sweepBatch(run, batch, digestOf, remove);
}

async function sweepBatch<Item>(
  { store, context, dryRun, parallel, claims }: Run,
  batch: readonly Item[],
  digestOf: (item: Item) => Digest,
  remove: (item: Item) => Promise<void>,
): Promise<void> {
  if (dryRun) return inParallel(batch, parallel, remove);
  const { free, isValid, end } = await beginSweep(store, batch.map(digestOf), { claims, signal: context.signal });
  await inParallel(batch, parallel, async (item) => {
    if (free.has(digestOf(item)) && isValid()) await remove(item);
  });
  await end();
}
