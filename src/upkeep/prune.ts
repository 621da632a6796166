import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { Repository } from '../oci/reference.ts';
import {
  blobKey,
  BLOBS,
  memberKey,
  parseBlobKey,
  parseRepositoryKey,
  parseUsedKey,
  REPOSITORIES,
  tagKey,
  usedKey,
  USES,
} from '../store/keys.ts';
import { beginSweep, noClaims, removeOldClaims, type Claims } from '../store/claims.ts';
import type { Store, StoreContext } from '../store/store.ts';
import { readManifest, takeInventory, type Image, type Inventory } from './inventory.ts';
import { keptImages, type Keep, type KeepReason } from './keep.ts';
import { inParallel } from '../async/parallel.ts';
import { confirmInventory, hidden, lookUp } from './confirm.ts';
import { removeOldUploads } from './uploads.ts';
import { countReferences, planPruning, type Departure, type Limits } from './plan.ts';
import { namesOf, readTag, readTags, type TagsByImage } from './tags.ts';

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
  /** Removed tags, access records and usage records. */
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

const DAY = 86_400_000;
/** The number of blobs announced to pushes at once. */
const SWEPT_AT_ONCE = 500;
/** How long usage records are kept, apart from the last one of an image. */
const USES_KEPT = 30 * DAY;
/** How long a tag is kept whose image is not stored, after upstream has last confirmed it. */
const TAGS_KEPT = 30 * DAY;

/** Removes images that are too old or too many, blobs that no image names, and the records of both.
 *  Concurrent pulls and prunings lose only time: removed content is downloaded again. A run may be
 *  interrupted at any moment: an image is removed before its blobs, and the next run finds the
 *  rest.
 *  @throws OciError UNAVAILABLE: the store cannot be listed, read or written, or two listings
 *  differ; DENIED: more than `maxShare` would be removed */
export async function prune(store: Store, options: PruneOptions): Promise<PruneResult> {
  const { signal, dryRun = false, progress } = options;
  const started = performance.now();
  const inventory = await takeInventory(store, {
    signal,
    ...(options.parallel === undefined ? {} : { parallel: options.parallel }),
    progress: (done, total) => progress?.('reading manifests', done, total),
  });
  const limits = await options.limits(inventory.blobs.bytes());
  const { kept, tags: tagsOfKept } = await findKept(store, inventory, options);
  const plan = planPruning({ ...inventory, kept }, limits);
  const parallel = options.parallel ?? 8;
  let arrived = new Set<Digest>();
  if (!dryRun) {
    checkShare({ ...inventory, kept }, limits, options.maxShare ?? 1);
    arrived = await confirmInventory(store, inventory, {
      started: limits.now - (performance.now() - started),
      grace: limits.grace,
      ...(tagsOfKept === undefined ? {} : { tags: tagsOfKept }),
      parallel,
      signal,
    });
  }
  const work: Work = { store, inventory, limits, dryRun, context: { signal }, parallel, arrived, records: 0, claims: noClaims() };
  const repositories = new Set(plan.departures.flatMap(({ image }) => image.places.map(({ repository }) => repository)));
  const tags = await readTags(store, { repositories, parallel: work.parallel, signal });
  const gone = await removeImages(work, { departures: plan.departures, tags }, (done) =>
    progress?.('removing images', done, plan.departures.length),
  );
  const references = await stillNeeded(work, gone);
  const swept = await sweepBlobs(work, { gone, references }, (done) => progress?.('removing blobs', done, inventory.blobs.count()));
  progress?.('removing records', 0, 1);
  await sweepRecords(work, gone, references);
  await sweepUses(work, gone);
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
    records: work.records,
    before: plan.before,
    limit: limits.maxSize,
    kept: kept.size,
    overLimit: limits.maxSize > 0 && plan.before - swept.bytes > limits.maxSize,
  };
}

/** Removals by `maxSize` do not count: that limit is meant to be reached. @throws OciError DENIED:
 *  more would be removed than one run may */
function checkShare(inventory: Parameters<typeof planPruning>[0], limits: Limits, maxShare: number): void {
  const { before, after } = planPruning(inventory, { ...limits, maxSize: 0 });
  if (before - after <= maxShare * before) return;
  throw new OciError(
    'DENIED',
    `pruning would remove ${before - after} of ${before} bytes as too old or named by no image, more than the ${Math.round(100 * maxShare)} % that ` +
      'registry.cache.maxPruneShare allows in one run; nothing was removed. "kube-registry cache prune --dry-run" shows what would go, --force removes it',
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

interface Work {
  store: Store;
  inventory: Inventory;
  limits: Limits;
  dryRun: boolean;
  context: StoreContext;
  parallel: number;
  /** Manifests whose records have appeared since the inventory began. */
  arrived: ReadonlySet<Digest>;
  /** Records removed so far. */
  records: number;
  /** The claims of concurrent pushes. */
  claims: Claims;
}

async function removeRecord(work: Work, key: string): Promise<void> {
  work.records++;
  if (!work.dryRun) await work.store.remove(key, work.context);
}

function isOld({ limits }: Work, modified: number): boolean {
  return limits.now - modified >= limits.grace;
}

/** Removes tags first and manifests last: a partly removed image is still an image, without a name.
 *  @returns the removed images */
async function removeImages(
  work: Work,
  { departures, tags }: { departures: readonly Departure[]; tags: TagsByImage },
  progress: (done: number) => void,
): Promise<Set<Image>> {
  const gone = new Set<Image>();
  const spared = new Set<number>();
  let done = 0;
  async function removeImage({ image }: Departure): Promise<void> {
    progress(++done);
    if (spared.has(image.blob) || (await wasUsedMeanwhile(work, image))) {
      for (const blob of image.names) spared.add(blob);
      return;
    }
    for (const { repository } of image.places) {
      for (const tag of tags.get(`${repository}@${image.digest}`) ?? []) await removeRecord(work, tagKey(repository, tag));
      await removeRecord(work, memberKey(repository, image.digest));
    }
    if (!work.dryRun) await work.store.remove(blobKey(image.digest), work.context);
    gone.add(image);
  }
  /** In sweeps, since concurrent pushes may name the same manifests. */
  async function removeAll(departing: readonly Departure[]): Promise<void> {
    for (let at = 0; at < departing.length; at += SWEPT_AT_ONCE) {
      const batch = departing.slice(at, at + SWEPT_AT_ONCE);
      await sweep(work, batch, ({ image }) => image.digest, removeImage);
    }
  }
  // Indexes are checked first: if one stays, so does everything that it names.
  const [indexes, others] = [departures.filter(({ image }) => image.isIndex), departures.filter(({ image }) => !image.isIndex)];
  await removeAll(indexes);
  await removeAll(others);
  return gone;
}

/** The days whose records may show a use within the grace. */
function recentDays({ limits }: Work): Date[] {
  const days: Date[] = [];
  for (let day = limits.now - (limits.now % DAY); day + DAY > limits.now - limits.grace; day -= DAY) days.push(new Date(day));
  return days;
}

/** Whether the image was downloaded again or pulled since the inventory. */
async function wasUsedMeanwhile(work: Work, image: Image): Promise<boolean> {
  const { store, context, inventory } = work;
  const manifest = await store.stat(blobKey(image.digest), context);
  if (manifest !== undefined && manifest.modified.getTime() > inventory.blobs.modified(image.blob)) return true;
  for (const { repository, usedAt } of image.places) {
    for (const day of recentDays(work)) {
      const use = await store.stat(usedKey(day, repository, image.digest), context);
      if (use !== undefined && use.modified.getTime() > usedAt) return true;
    }
  }
  return false;
}

/** How many images need each blob now, including images pulled since the inventory. */
async function stillNeeded(work: Work, gone: ReadonlySet<Image>): Promise<Uint32Array> {
  const { inventory, store, context, dryRun } = work;
  const { blobs, images, byDigest } = inventory;
  const references = countReferences(
    blobs,
    images.filter((image) => !gone.has(image)),
  );
  const fresh = new Set(work.arrived);
  for (const day of recentDays(work)) {
    for await (const { key } of store.list(`${USES}${day.toISOString().slice(0, 10)}/`, context)) {
      const digest = parseUsedKey(key)?.digest;
      const image = digest === undefined ? undefined : byDigest.get(digest);
      // A removed image that was pulled again is present again; in a dry run it was never removed.
      if (digest !== undefined && (image === undefined || (gone.has(image) && !dryRun))) fresh.add(digest);
    }
  }
  await inParallel(fresh, work.parallel, async (digest) => {
    const content = await readManifest(store, digest, context);
    if (content === undefined && (await store.stat(blobKey(digest), context)) !== undefined) throw hidden(digest);
    if (content === undefined || content === 'corrupt') return;
    for (const named of [...content.manifests, ...content.blobs]) {
      const blob = blobs.find(named.digest);
      if (blob !== -1) references[blob] = (references[blob] ?? 0) + 1;
    }
  });
  return references;
}

/** A blob that nothing names. */
interface Unneeded {
  key: string;
  digest: Digest;
  size: number;
}

/** Removes blobs that no push has claimed in the meantime (store/claims.ts). The next run finds the
 *  rest. */
async function sweep<Item>(
  { store, context, dryRun, parallel, claims }: Work,
  items: readonly Item[],
  digestOf: (item: Item) => Digest,
  remove: (item: Item) => Promise<void>,
): Promise<void> {
  if (items.length === 0) return;
  if (dryRun) return inParallel(items, parallel, remove);
  const { free, isValid, end } = await beginSweep(store, items.map(digestOf), { claims, signal: context.signal });
  await inParallel(items, parallel, async (item) => {
    if (free.has(digestOf(item)) && isValid()) await remove(item);
  });
  await end();
}

interface Left {
  gone: ReadonlySet<Image>;
  references: Uint32Array;
}

/** Removes unneeded blobs: those that became unneeded in this run, and those left by a former run
 *  or by a pull without a manifest. */
async function sweepBlobs(
  work: Work,
  { gone, references }: Left,
  progress: (done: number) => void,
): Promise<{ blobs: number; bytes: number }> {
  const { inventory, store, context, dryRun } = work;
  const swept = { blobs: 0, bytes: 0 };
  for (const { blob } of gone) {
    swept.blobs++;
    swept.bytes += inventory.blobs.size(blob);
  }
  async function* unneeded(): AsyncGenerator<Unneeded> {
    let done = 0;
    for await (const { key, size, modified } of store.list(BLOBS, context)) {
      progress(++done);
      const digest = parseBlobKey(key);
      const blob = digest === undefined ? -1 : inventory.blobs.find(digest);
      if (digest === undefined || blob === -1 || (references[blob] ?? 0) > 0 || !isOld(work, modified.getTime())) continue;
      const image = inventory.byDigest.get(digest);
      if (image === undefined || !gone.has(image)) yield { key, digest, size };
    }
  }
  async function remove({ key, size }: Unneeded): Promise<void> {
    if (!dryRun) await store.remove(key, context);
    swept.blobs++;
    swept.bytes += size;
  }
  let batch: Unneeded[] = [];
  for await (const blob of unneeded()) {
    batch.push(blob);
    if (batch.length < SWEPT_AT_ONCE) continue;
    await sweep(work, batch, ({ digest }) => digest, remove);
    batch = [];
  }
  await sweep(work, batch, ({ digest }) => digest, remove);
  return swept;
}

/** Removes access records whose blob is not stored, tags without a stored image, and referrers
 *  lists of images that are not stored. */
async function sweepRecords(work: Work, gone: ReadonlySet<Image>, references: Uint32Array): Promise<void> {
  const { store, context, inventory, limits } = work;
  const { blobs, byDigest } = inventory;
  const handled = (repository: Repository, image: Image | undefined): boolean =>
    image !== undefined && gone.has(image) && image.places.some((place) => place.repository === repository);

  async function* useless(): AsyncGenerator<UselessRecord> {
    for await (const { key, modified } of store.list(REPOSITORIES, context)) {
      const record = parseRepositoryKey(key);
      if (record === undefined || !isOld(work, modified.getTime())) continue;
      const { repository } = record;
      if ('member' in record) {
        const blob = blobs.find(record.member);
        const stored = blob !== -1 && ((references[blob] ?? 0) > 0 || !isOld(work, blobs.modified(blob)));
        if (stored || handled(repository, byDigest.get(record.member))) continue;
        // The listings may have left out the blob.
        if (blob === -1 && (await lookUp(store, record.member, context)) !== undefined) continue;
        yield { key, digest: record.member, modified };
      } else if ('subject' in record) {
        const image = byDigest.get(record.subject);
        if (image === undefined || gone.has(image)) yield { key, digest: record.subject, modified };
      } else if (limits.now - modified.getTime() > TAGS_KEPT) {
        const digest = (await readTag(store, record, context))?.digest;
        if (digest === undefined) continue; // it was removed, or the response that says so is wrong
        const image = byDigest.get(digest);
        if ((image === undefined || gone.has(image)) && !handled(repository, image)) yield { key, digest, modified };
      }
    }
  }
  const remove = async ({ key, modified }: UselessRecord): Promise<void> => {
    const found = await store.stat(key, context);
    // A push has written the record again.
    if (found !== undefined && found.modified.getTime() > modified.getTime()) return;
    await removeRecord(work, key);
  };
  // A concurrent push may have claimed the digests: its manifest needs these records.
  let batch: UselessRecord[] = [];
  for await (const record of useless()) {
    batch.push(record);
    if (batch.length < SWEPT_AT_ONCE) continue;
    await sweep(work, batch, ({ digest }) => digest, remove);
    batch = [];
  }
  await sweep(work, batch, ({ digest }) => digest, remove);
}

interface UselessRecord {
  key: string;
  /** The digest that the record names. */
  digest: Digest;
  modified: Date;
}

/** Keeps the last use of each remaining image and its uses of the last month; of other images only
 *  recent ones. */
async function sweepUses(work: Work, gone: ReadonlySet<Image>): Promise<void> {
  const { store, context, inventory, limits } = work;
  async function* useless(): AsyncGenerator<string> {
    for await (const { key } of store.list(USES, context)) {
      const use = parseUsedKey(key);
      if (use === undefined) continue;
      const image = inventory.byDigest.get(use.digest);
      const place = image?.places.find(({ repository }) => repository === use.repository);
      const age = limits.now - (Date.parse(use.day) + DAY);
      if (image === undefined || place === undefined || gone.has(image)) {
        if (age >= limits.grace) yield key;
      } else if (age > USES_KEPT && use.day < place.lastDay) yield key;
    }
  }
  await inParallel(useless(), work.parallel, (key) => removeRecord(work, key));
}
