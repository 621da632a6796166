import { inParallel } from '../async/parallel.ts';
import type { Digest } from '../oci/digest.ts';
import { blobKey, BLOBS, parseBlobKey, parseUsedKey, USES } from '../store/keys.ts';
import { hidden } from './confirm.ts';
import { readManifest, type Image } from './inventory.ts';
import { countReferences } from './plan.ts';
import { isOld, recentDays, sweep, type Run } from './removal.ts';

/** How many images need each blob now, including images pulled since the inventory. */
export async function countNeeds(run: Run, gone: ReadonlySet<Image>): Promise<Uint32Array> {
  const { inventory, store, context, dryRun } = run;
  const { blobs, images, byDigest } = inventory;
  const references = countReferences(
    blobs,
    images.filter((image) => !gone.has(image)),
  );
  const fresh = new Set(run.arrived);
  for (const day of recentDays(run)) {
    for await (const { key } of store.list(`${USES}${day.toISOString().slice(0, 10)}/`, context)) {
      const digest = parseUsedKey(key)?.digest;
      const image = digest === undefined ? undefined : byDigest.get(digest);
      // A removed image that was pulled again is present again; in a dry run it was never removed.
      if (digest !== undefined && (image === undefined || (gone.has(image) && !dryRun))) fresh.add(digest);
    }
  }
  await inParallel(fresh, run.parallel, async (digest) => {
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

export interface Left {
  gone: ReadonlySet<Image>;
  references: Uint32Array;
}

/** Removes unneeded blobs: those that became unneeded in this run, and those left by a former run
 *  or by a pull without a manifest. */
export async function sweepBlobs(
  run: Run,
  { gone, references }: Left,
  progress: (done: number) => void,
): Promise<{ blobs: number; bytes: number }> {
  const { inventory, store, context, dryRun } = run;
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
      if (digest === undefined || blob === -1 || (references[blob] ?? 0) > 0 || !isOld(run, modified.getTime())) continue;
      const image = inventory.byDigest.get(digest);
      if (image === undefined || !gone.has(image)) yield { key, digest, size };
    }
  }
  async function remove({ key, size }: Unneeded): Promise<void> {
    if (!dryRun) await store.remove(key, context);
    swept.blobs++;
    swept.bytes += size;
  }
  await sweep(run, unneeded(), ({ digest }) => digest, remove);
  return swept;
}
