import type { BlobTable } from './blob-table.ts';
import type { Image, Inventory } from './inventory.ts';

/** The limits of a pruning, in milliseconds and bytes. */
export interface Limits {
  now: number;
  /** Objects that were modified or used within this time are never removed. */
  grace: number;
  /** The total size of all blobs; 0 for no limit. */
  maxSize: number;
  /** Images that have not been pulled for longer than this are removed; 0: none is. */
  maxAge: number;
}

export interface Departure {
  image: Image;
  /** When it was last pulled, at the latest. */
  lastUse: number;
  because: 'age' | 'size';
}

export interface Plan {
  /** In the order of removal. */
  departures: Departure[];
  /** Bytes of all blobs, now and after the removals. */
  before: number;
  after: number;
}

/** The contents of the store, and the images that must stay regardless of the limits, with
 *  everything that they name and all artifacts about them. */
type PlanInput = Pick<Inventory, 'blobs' | 'images' | 'byDigest'> & { kept?: { has(image: Image): boolean } };

const DAY = 86_400_000;

/** Selects the images to remove: those that are too old, and then, while the rest is too large, the
 *  least recently used (promise 13). Images that an index names stay with it; an artifact counts as
 *  used whenever its subject is. */
export function planPruning({ blobs, images, byDigest, kept = new Set() }: PlanInput, limits: Limits): Plan {
  const { now, grace, maxSize, maxAge } = limits;
  const uses = usesOf(images, { blobs, byDigest, now, kept });
  const references = countReferences(blobs, images);
  let after = blobs.bytes();
  const leave = (blob: number): void => {
    if (now - blobs.modified(blob) >= grace) after -= blobs.size(blob);
  };
  for (let blob = 0; blob < blobs.count(); blob++) if (references[blob] === 0) leave(blob);

  const departures: Departure[] = [];
  const leastRecentFirst = [...uses].sort(([one, a], [other, b]) => a.at - b.at || Number(other.isIndex) - Number(one.isIndex));
  for (const [image, { lastUse }] of leastRecentFirst) {
    const old = maxAge > 0 && now - lastUse > maxAge;
    const tooMuch = maxSize > 0 && after > maxSize;
    const named = (references[image.blob] ?? 0) > 1;
    if (now - lastUse < grace || named || !(old || tooMuch)) continue;
    departures.push({ image, lastUse, because: old ? 'age' : 'size' });
    for (const blob of [image.blob, ...image.names]) {
      references[blob] = (references[blob] ?? 0) - 1;
      if (references[blob] === 0) leave(blob);
    }
  }
  return { departures, before: blobs.bytes(), after };
}

/** How many of `images` need each blob: those that name it, and the image whose manifest it is.
 *  Unneeded blobs have 0. */
export function countReferences(blobs: BlobTable, images: Iterable<Image>): Uint32Array {
  const references = new Uint32Array(blobs.count());
  for (const { blob, names } of images) for (const one of [blob, ...names]) references[one] = (references[one] ?? 0) + 1;
  return references;
}

interface Use {
  /** The latest moment at which it may have been pulled: a day's record is written by the day's
   *  first pull. */
  lastUse: number;
  /** The best estimate, for the order among images. */
  at: number;
}

/** The use of an image that must stay. */
const ALWAYS: Use = { lastUse: Infinity, at: Infinity };

/** When each image was last used: by itself, through an index that names it, or through its
 *  subject. */
function usesOf(
  images: readonly Image[],
  { blobs, byDigest, now, kept }: Pick<Required<PlanInput>, 'blobs' | 'byDigest' | 'kept'> & { now: number },
): Map<Image, Use> {
  const useOf = (image: Image): Use => (kept.has(image) ? { ...ALWAYS } : ownUse(image, blobs.modified(image.blob), now));
  const uses = new Map(images.map((image) => [image, useOf(image)]));
  const byBlob = new Map(images.map((image) => [image.blob, image]));
  const spread = (from: Image | undefined, to: Image | undefined): boolean => {
    const [source, target] = [from && uses.get(from), to && uses.get(to)];
    if (source === undefined || target === undefined) return false;
    if (source.lastUse <= target.lastUse && source.at <= target.at) return false;
    target.lastUse = Math.max(target.lastUse, source.lastUse);
    target.at = Math.max(target.at, source.at);
    return true;
  };
  // For an index of indexes or an artifact about an artifact, each round reaches one level further.
  // No digest can name itself, so the loop ends.
  for (let changed = true; changed;) {
    changed = false;
    for (const image of images) {
      if (image.isIndex) for (const blob of image.names) if (spread(image, byBlob.get(blob))) changed = true;
      if (image.subject !== undefined && spread(byDigest.get(image.subject), image)) changed = true;
    }
  }
  return uses;
}

/** The latest time at which the image itself can have been used, in ms since the epoch. */
export function lastUseOf(image: Image, { blobs, now }: Pick<PlanInput, 'blobs'> & { now: number }): number {
  return ownUse(image, blobs.modified(image.blob), now).lastUse;
}

function ownUse({ places }: Image, modified: number, now: number): Use {
  const use: Use = { lastUse: modified, at: 0 };
  for (const { lastDay, usedAt } of places) {
    if (lastDay === '') continue;
    const start = Date.parse(lastDay);
    use.lastUse = Math.max(use.lastUse, Math.min(now, start + DAY - 1));
    use.at = Math.max(use.at, Math.min(Math.max(usedAt, start), start + DAY - 1));
  }
  return use.at === 0 ? { ...use, at: modified } : use;
}
