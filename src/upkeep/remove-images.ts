import { blobKey, memberKey, tagKey, usedKey } from '../store/keys.ts';
import type { Image } from './inventory.ts';
import type { Departure } from './plan.ts';
import { recentDays, removeRecord, sweep, type Run } from './removal.ts';
import type { TagsByImage } from './tags.ts';

/** Removes tags first and manifests last: a partly removed image is still an image, without a name.
 *  @returns the removed images */
export async function removeImages(
  run: Run,
  { departures, tags }: { departures: readonly Departure[]; tags: TagsByImage },
  progress: (done: number) => void,
): Promise<Set<Image>> {
  const gone = new Set<Image>();
  const spared = new Set<number>();
  let done = 0;
  async function removeImage({ image }: Departure): Promise<void> {
    progress(++done);
    if (spared.has(image.blob) || (await wasUsedMeanwhile(run, image))) {
      for (const blob of image.names) spared.add(blob);
      return;
    }
    for (const { repository } of image.places) {
      for (const tag of tags.get(`${repository}@${image.digest}`) ?? []) await removeRecord(run, tagKey(repository, tag));
      await removeRecord(run, memberKey(repository, image.digest));
    }
    if (!run.dryRun) await run.store.remove(blobKey(image.digest), run.context);
    gone.add(image);
  }
  // Indexes are checked first: if one stays, so does everything that it names.
  const [indexes, others] = [departures.filter(({ image }) => image.isIndex), departures.filter(({ image }) => !image.isIndex)];
  for (const departing of [indexes, others]) await sweep(run, departing, ({ image }) => image.digest, removeImage);
  return gone;
}

/** Whether the image was downloaded again or pulled since the inventory. */
async function wasUsedMeanwhile(run: Run, image: Image): Promise<boolean> {
  const { store, context, inventory } = run;
  const manifest = await store.stat(blobKey(image.digest), context);
  if (manifest !== undefined && manifest.modified.getTime() > inventory.blobs.modified(image.blob)) return true;
  for (const { repository, usedAt } of image.places) {
    for (const day of recentDays(run)) {
      const use = await store.stat(usedKey(day, repository, image.digest), context);
      if (use !== undefined && use.modified.getTime() > usedAt) return true;
    }
  }
  return false;
}
