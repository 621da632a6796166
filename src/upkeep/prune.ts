import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { Repository } from '../oci/reference.ts';
import { noClaims, removeOldClaims } from '../store/claims.ts';
import type { Store } from '../store/store.ts';
import { takeInventory, type Image, type Inventory } from './inventory.ts';
import { keptImages, type Keep, type KeepReason } from './keep.ts';
import { confirmInventory } from './confirm.ts';
import { removeOldUploads } from './uploads.ts';
import { planPruning, type Departure, type Limits, type Plan } from './plan.ts';
import type { Run } from './removal.ts';
import { removeImages } from './remove-images.ts';
import { countNeeds, sweepBlobs } from './sweep-blobs.ts';
import { sweepOwners, sweepRecords, sweepSeen, sweepUses } from './sweep-records.ts';
import { namesOf, readTags, type TagsByImage } from './tags.ts';

export interface PruneOptions {
  /** Called once the number of stored bytes is known. */
  limits(stored: number): Promise<Limits>;
  /** The largest part of the stored bytes, from 0 to 1, that one run may remove as too old or named
   *  by no image; absent: all. A run that would remove more removes nothing, because more likely
   *  the store or the clock is wrong. */
  maxShare?: number;
  /** Called before the planning: decides which images must stay. If it rejects, nothing is
   *  removed. */
  keep?(this: void, signal: AbortSignal): Promise<Keep>;
  /** Whether no client can name a repository any more. Its records are removed, except those of an
   *  image that was used within a month. */
  isAbandoned?(this: void, repository: Repository): boolean;
  /** Reports what would be removed, and removes nothing. */
  dryRun?: boolean;
  signal: AbortSignal;
  /** The number of concurrent calls to the store. */
  parallel?: number;
  progress?(this: void, doing: string, done: number, total: number): void;
}

export interface PruneResult {
  /** Removed images, in this order, with their names: `repository:tag`, or `repository@digest`. */
  images: (Departure & { names: string[] })[];
  /** Images that were to be removed, but were pulled during the run. */
  spared: number;
  /** Removed blobs, including manifests. */
  blobs: number;
  /** Removed bytes. */
  bytes: number;
  /** Removed tags, access records, usage records, and records of when images were first seen. */
  records: number;
  /** Images that must stay. */
  kept: number;
  /** Bytes of all blobs before the run. */
  before: number;
  /** The limit in bytes; 0: none. */
  limit: number;
  /** The store is still larger than the limit: all other images are in use or young. */
  overLimit: boolean;
}

/** Removes images that are too old or too many, blobs that no image names, and the records of both.
 *  Concurrent pulls and prunings lose only time: removed content is downloaded again. A run may be
 *  interrupted at any moment: an image is removed before its blobs, and the next run finds the
 *  rest.
 *  @throws OciError UNAVAILABLE: the store cannot be listed, read or written, or two listings
 *  differ; DENIED: more than `maxShare` would be removed */
export async function prune(store: Store, options: PruneOptions): Promise<PruneResult> {
  const { signal, dryRun = false, progress } = options;
  const { run, plan, kept } = await prepare(store, options);
  const { limits, inventory } = run;
  const repositories = new Set(plan.departures.flatMap(({ image }) => image.places.map(({ repository }) => repository)));
  const tags = await readTags(store, { repositories, parallel: run.parallel, signal });
  const gone = await removeImages(run, { departures: plan.departures, tags }, (done) =>
    progress?.('removing images', done, plan.departures.length),
  );
  const references = await countNeeds(run, gone);
  const swept = await sweepBlobs(run, { gone, references }, (done) => progress?.('removing blobs', done, inventory.blobs.count()));
  progress?.('removing records', 0, 1);
  await sweepRecords(run, gone, references);
  await sweepOwners(run, references);
  await sweepUses(run, gone);
  await sweepSeen(run);
  if (!dryRun) {
    await removeOldClaims(store, signal);
    await removeOldUploads(store, { now: limits.now, grace: limits.grace, signal });
  }
  progress?.('removing records', 1, 1);
  const images = plan.departures
    .filter(({ image }) => gone.has(image))
    .map((departure) => ({ ...departure, names: namesOf(departure.image, tags) }));
  return {
    images,
    spared: plan.departures.length - images.length,
    ...swept,
    records: run.records,
    before: plan.before,
    limit: limits.maxSize,
    kept,
    overLimit: limits.maxSize > 0 && plan.before - swept.bytes > limits.maxSize,
  };
}

/** Plans a run, and makes sure that its plan may be carried out. */
async function prepare(store: Store, options: PruneOptions): Promise<{ run: Run; plan: Plan; kept: number }> {
  const { signal, dryRun = false, progress, parallel = 8 } = options;
  const started = performance.now();
  const inventory = await takeInventory(store, {
    signal,
    ...(options.parallel === undefined ? {} : { parallel }),
    progress: (done, total) => progress?.('reading manifests', done, total),
  });
  const limits = await options.limits(inventory.blobs.bytes());
  const { kept, tags } = await findKept(store, inventory, options);
  const plan = planPruning({ ...inventory, kept }, limits);
  if (!dryRun) checkShare({ ...inventory, kept }, limits, options.maxShare ?? 1);
  const arrived = dryRun
    ? new Set<Digest>()
    : await confirmInventory(store, inventory, {
        started: limits.now - (performance.now() - started),
        grace: limits.grace,
        ...(tags === undefined ? {} : { tags }),
        parallel,
        signal,
      });
  const { isAbandoned = () => false } = options;
  const run = {
    store,
    inventory,
    limits,
    dryRun,
    context: { signal },
    parallel,
    kept,
    isAbandoned,
    arrived,
    records: 0,
    claims: noClaims(),
  };
  return { run, plan, kept: kept.size };
}

/** Removals by `maxSize` do not count: that limit is meant to be reached. @throws OciError DENIED:
 *  more would be removed than one run may */
function checkShare(inventory: Parameters<typeof planPruning>[0], limits: Limits, maxShare: number): void {
  const { before, after } = planPruning(inventory, { ...limits, maxSize: 0 });
  if (before - after <= maxShare * before) return;
  throw new OciError(
    'DENIED',
    `pruning would remove ${before - after} of ${before} bytes as too old or named by no image, more than the ${Math.round(100 * maxShare)} % that ` +
      'registry.cache.maxPruneShare allows in one run; nothing was removed. "kube-registry cache prune --dry-run" shows what would be removed, --force removes it',
  );
}

async function findKept(
  store: Store,
  { images }: Inventory,
  { keep, signal, parallel = 8 }: PruneOptions,
): Promise<{ kept: Map<Image, KeepReason>; tags?: TagsByImage }> {
  if (keep === undefined) return { kept: new Map() };
  const [reasonOf, tags] = await Promise.all([keep(signal), readTags(store, { parallel, signal })]);
  return { kept: keptImages(images, { keep: reasonOf, tags }), tags };
}
