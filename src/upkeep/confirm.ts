import { OciError } from '../oci/error.ts';
import { blobKey, isManifestRecord, parseRepositoryKey, parseUsedKey, REPOSITORIES, USES } from '../store/keys.ts';
import type { Store } from '../store/store.ts';
import type { Inventory } from './inventory.ts';

/** Records younger than this are left alone: the clocks of this machine and of the store may differ that much. */
const CLOCK_TOLERANCE_MS = 60_000;

/** Lists a second time what an inventory rests on. Whatever hides between this process and the store (a gateway that leaves out keys, a page that
 *  was cut in a way that nothing shows) would have to do so twice, and in the same place, for an image in use to look unused.
 *  @param options.started when the first listing began, in ms since the epoch
 *  @throws OciError UNAVAILABLE: the second listing has an image or a use that the first one should have had, or the store cannot be listed */
export async function confirmInventory(
  store: Store,
  inventory: Inventory,
  { started, signal }: { started: number; signal: AbortSignal },
): Promise<void> {
  const wasThere = (modified: Date): boolean => modified.getTime() < started - CLOCK_TOLERANCE_MS;

  for await (const { key, size, modified } of store.list(REPOSITORIES, { signal })) {
    const record = parseRepositoryKey(key);
    if (record === undefined || !('member' in record) || !isManifestRecord(size) || !wasThere(modified)) continue;
    const image = inventory.byDigest.get(record.member);
    if (image !== undefined) {
      if (!image.places.some(({ repository }) => repository === record.repository)) throw differing(key);
      continue;
    }
    const manifest = await store.stat(blobKey(record.member), { signal });
    if (manifest !== undefined && wasThere(manifest.modified)) throw differing(blobKey(record.member));
  }
  for await (const { key, modified } of store.list(USES, { signal })) {
    const use = parseUsedKey(key);
    if (use === undefined || !wasThere(modified)) continue;
    const place = inventory.byDigest.get(use.digest)?.places.find(({ repository }) => repository === use.repository);
    if (place !== undefined && use.day > place.lastDay) throw differing(key);
  }
}

function differing(key: string): OciError {
  const message = `two listings of the store differ in ${key}: something between the registry and the store leaves keys out; nothing was removed`;
  return new OciError('UNAVAILABLE', message, { origin: 'storage' });
}
