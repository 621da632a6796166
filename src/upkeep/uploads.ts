import { PARTS, UPLOADS } from '../store/keys.ts';
import type { Store } from '../store/store.ts';

/** Removes uploads, and parts of downloads, that were not continued for `grace` ms. */
export async function removeOldUploads(store: Store, options: { now: number; grace: number; signal: AbortSignal }): Promise<void> {
  for (const prefix of [UPLOADS, PARTS]) await removeOldFolders(store, prefix, options);
}

/** Removes the folders below `prefix` whose newest object is at least `grace` ms old. */
async function removeOldFolders(
  store: Store,
  prefix: string,
  { now, grace, signal }: { now: number; grace: number; signal: AbortSignal },
): Promise<void> {
  let folder = '';
  let keys: string[] = [];
  let modifiedAt = 0;
  async function end(): Promise<void> {
    if (now - modifiedAt >= grace) for (const key of keys) await store.remove(key, { signal });
  }
  for await (const { key, modified } of store.list(prefix, { signal })) {
    const own = key.slice(0, key.lastIndexOf('/'));
    if (own !== folder) {
      await end();
      [folder, keys, modifiedAt] = [own, [], 0];
    }
    keys.push(key);
    modifiedAt = Math.max(modifiedAt, modified.getTime());
  }
  await end();
}
