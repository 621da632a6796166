import { UPLOADS } from '../store/keys.ts';
import type { Store } from '../store/store.ts';

/** Removes uploads that were not continued for `grace` ms. */
export async function removeOldUploads(
  store: Store,
  { now, grace, signal }: { now: number; grace: number; signal: AbortSignal },
): Promise<void> {
  let upload = '';
  let keys: string[] = [];
  let modifiedAt = 0;
  async function end(): Promise<void> {
    if (now - modifiedAt >= grace) for (const key of keys) await store.remove(key, { signal });
  }
  for await (const { key, modified } of store.list(UPLOADS, { signal })) {
    const own = key.slice(0, key.lastIndexOf('/'));
    if (own !== upload) {
      await end();
      [upload, keys, modifiedAt] = [own, [], 0];
    }
    keys.push(key);
    modifiedAt = Math.max(modifiedAt, modified.getTime());
  }
  await end();
}
