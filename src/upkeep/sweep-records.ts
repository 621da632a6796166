import { inParallel } from '../async/parallel.ts';
import type { Digest } from '../oci/digest.ts';
import type { Repository } from '../oci/reference.ts';
import { OWNERS, parseOwnedBlob, parseRepositoryKey, parseSeenKey, parseUsedKey, REPOSITORIES, SEEN, USES } from '../store/keys.ts';
import { lookUp } from './confirm.ts';
import type { Image } from './inventory.ts';
import { lastUseOf } from './plan.ts';
import { isOld, removeRecord, sweep, type Run } from './removal.ts';
import { readTag } from './tags.ts';

const DAY = 86_400_000;
/** How long usage records are kept, apart from the last one of an image. */
const USES_KEPT = 30 * DAY;
/** How long a tag is kept whose image is not stored, after upstream has last confirmed it. */
const TAGS_KEPT = 30 * DAY;
/** How long the record of when a manifest was first seen is kept while the manifest is not stored.
 *  Without the record, registry.policy.minimumAge would refuse the image again as a new one, so
 *  this is far longer than any minimum age. */
const SEEN_KEPT = 365 * DAY;
/** How long an image that exists only in abandoned repositories is kept after its last use: a new
 *  pull secret may give access to it, and then no download is needed. */
const ABANDONED_KEPT = 30 * DAY;

/** Removes access records whose blob is not stored, tags without a stored image, referrers lists of
 *  images that are not stored, and the records of abandoned repositories. */
export async function sweepRecords(run: Run, gone: ReadonlySet<Image>, references: Uint32Array): Promise<void> {
  const { store, context, inventory, limits } = run;
  const { byDigest } = inventory;
  const handled = (repository: Repository, image: Image | undefined): boolean =>
    image !== undefined && gone.has(image) && image.places.some((place) => place.repository === repository);

  async function* useless(): AsyncGenerator<UselessRecord> {
    for await (const { key, modified } of store.list(REPOSITORIES, context)) {
      const record = parseRepositoryKey(key);
      if (record === undefined || !isOld(run, modified.getTime())) continue;
      const { repository } = record;
      if (run.isAbandoned(repository)) {
        const digest =
          'tag' in record ? (await readTag(store, record, context))?.digest : 'member' in record ? record.member : record.subject;
        if (digest === undefined) continue; // it was removed meanwhile
        const image = byDigest.get(digest);
        const isKept = image !== undefined && (handled(repository, image) || (!('subject' in record) && keepsImage(run, image)));
        if (!isKept) yield { key, digest, modified };
      } else if ('member' in record) {
        if (handled(repository, byDigest.get(record.member)) || (await stays(run, record.member, references))) continue;
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
  await sweepUseless(run, useless());
}

/** Removes the names of the owners of blobs that are not stored. */
export async function sweepOwners(run: Run, references: Uint32Array): Promise<void> {
  const { store, context } = run;
  async function* useless(): AsyncGenerator<UselessRecord> {
    for await (const { key, modified } of store.list(OWNERS, context)) {
      const digest = parseOwnedBlob(key);
      if (digest === undefined || !isOld(run, modified.getTime()) || (await stays(run, digest, references))) continue;
      yield { key, digest, modified };
    }
  }
  await sweepUseless(run, useless());
}

/** Whether a blob is stored, and this run does not remove it. */
async function stays(run: Run, digest: Digest, references: Uint32Array): Promise<boolean> {
  const { store, context, inventory } = run;
  const blob = inventory.blobs.find(digest);
  if (blob !== -1) return (references[blob] ?? 0) > 0 || !isOld(run, inventory.blobs.modified(blob));
  return (await lookUp(store, digest, context)) !== undefined; // the listings may have left it out
}

/** A concurrent push may have claimed the digests: its manifest needs these records. */
async function sweepUseless(run: Run, records: AsyncIterable<UselessRecord>): Promise<void> {
  const { store, context } = run;
  const remove = async ({ key, modified }: UselessRecord): Promise<void> => {
    const found = await store.stat(key, context);
    // A push has written the record again.
    if (found !== undefined && found.modified.getTime() > modified.getTime()) return;
    await removeRecord(run, key);
  };
  await sweep(run, records, ({ digest }) => digest, remove);
}

/** Whether an image is kept only by the records of abandoned repositories. */
function keepsImage({ kept, isAbandoned, inventory, limits }: Run, image: Image): boolean {
  if (kept.has(image)) return true;
  const isNew = limits.now - lastUseOf(image, { blobs: inventory.blobs, now: limits.now }) < ABANDONED_KEPT;
  return isNew && image.places.every(({ repository }) => isAbandoned(repository));
}

interface UselessRecord {
  key: string;
  /** The digest that the record names. */
  digest: Digest;
  modified: Date;
}

/** Keeps the last use of each remaining image and its uses of the last month; of other images only
 *  recent ones. */
export async function sweepUses(run: Run, gone: ReadonlySet<Image>): Promise<void> {
  const { store, context, inventory, limits } = run;
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
  await inParallel(useless(), run.parallel, (key) => removeRecord(run, key));
}

/** Removes records of when a manifest was first seen, if they are a year old and the manifest is
 *  not stored. */
export async function sweepSeen(run: Run): Promise<void> {
  const { store, context, inventory, limits } = run;
  async function* useless(): AsyncGenerator<string> {
    for await (const { key, modified } of store.list(SEEN, context)) {
      const digest = parseSeenKey(key);
      if (digest === undefined || limits.now - modified.getTime() < SEEN_KEPT || inventory.blobs.find(digest) !== -1) continue;
      // The listings may have left out the manifest.
      if ((await lookUp(store, digest, context)) === undefined) yield key;
    }
  }
  await inParallel(useless(), run.parallel, (key) => removeRecord(run, key));
}
