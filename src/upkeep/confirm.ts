import { inParallel } from '../async/parallel.ts';
import { MAX_MANIFEST_SIZE } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { blobKey, BLOBS, isManifestRecord, parseBlobKey, parseRepositoryKey, parseUsedKey, REPOSITORIES, USES } from '../store/keys.ts';
import type { Store, StoreContext, StoredObject } from '../store/store.ts';
import { readManifest, type Inventory } from './inventory.ts';
import { countReferences } from './plan.ts';
import type { TagsByImage } from './tags.ts';

// A pruning relies on absent records: no image names a blob, no use was recorded. A gateway in
// front of S3 may leave keys out of a page, or answer a listing with a well-formed empty page, and
// no single response shows it. So the listings are repeated before anything is removed: a gateway
// would have to hide the same key every time.

/** Records younger than this may have arrived after the first listing: the clocks of this machine
 *  and of the store may differ this much. */
const CLOCK_TOLERANCE_MS = 60_000;
/** How often each prefix is listed again. */
const REPEATED_LISTINGS = 2;
/** How often the usage records are listed again. Only the last days decide whether an image is too
 *  old. */
const REPEATED_USE_LISTINGS = 3;
/** How often a prefix is listed again that came back empty although the store has blobs. An empty
 *  page costs one call. */
const REPEATED_EMPTY_LISTINGS = 6;
/** How often the records are listed again for a stored manifest that no record names. */
const REPEATED_ORPHAN_LISTINGS = 4;
/** How often a blob that a record names but no listing has is looked up before it counts as
 *  absent. */
const LOOKUPS = 3;

export interface ConfirmOptions {
  /** When the first listing began, in ms since the epoch. */
  started: number;
  /** The tags on which the decision about pinned images relies; absent: it relies on none. */
  tags?: TagsByImage;
  /** Blobs modified within this many ms are never removed. */
  grace: number;
  /** The number of concurrent calls to the store. */
  parallel: number;
  signal: AbortSignal;
}

/** Repeats the listings and reads that an inventory relies on.
 *  @returns the manifests whose records have appeared since the inventory began
 *  @throws OciError UNAVAILABLE: a later response has an image, a blob, a tag or a use that the
 *  inventory lacks, or the store cannot be listed or read */
export async function confirmInventory(store: Store, inventory: Inventory, options: ConfirmOptions): Promise<Set<Digest>> {
  const arrived = new Set<Digest>();
  await confirmBlobs(store, inventory, options);
  await confirmRecords(store, inventory, { ...options, arrived });
  await confirmUses(store, inventory, options);
  await confirmOrphans(store, inventory, options);
  return arrived;
}

/** Lists `prefix` several times, and more often if the listings are empty. */
async function listAgain(
  store: Store,
  { prefix, times, signal }: { prefix: string; times: number; signal: AbortSignal },
  check: (object: StoredObject & { key: string }) => void | Promise<void>,
): Promise<void> {
  let isEmpty = false;
  for (let round = 0; round < (isEmpty ? REPEATED_EMPTY_LISTINGS : times); round++) {
    isEmpty = true;
    for await (const object of store.list(prefix, { signal })) {
      isEmpty = false;
      await check(object);
    }
  }
}

function wasThere(modified: Date, { started }: ConfirmOptions): boolean {
  return modified.getTime() < started - CLOCK_TOLERANCE_MS;
}

/** Checks that every listed blob was known, and that every listed manifest could be read. */
async function confirmBlobs(store: Store, { blobs, absent }: Inventory, options: ConfirmOptions): Promise<void> {
  await listAgain(store, { prefix: BLOBS, times: REPEATED_LISTINGS, signal: options.signal }, ({ key, modified }) => {
    const digest = parseBlobKey(key);
    if (digest === undefined || !wasThere(modified, options)) return;
    if (blobs.find(digest) === -1) throw differing(key);
    if (absent.has(digest)) throw hidden(digest);
  });
}

/** Checks that every recorded image and tag was known. */
async function confirmRecords(
  store: Store,
  { byDigest, blobs }: Inventory,
  options: ConfirmOptions & { arrived: Set<Digest> },
): Promise<void> {
  const { signal, arrived } = options;
  const tags = options.tags === undefined ? undefined : namesIn(options.tags);
  await listAgain(store, { prefix: REPOSITORIES, times: REPEATED_LISTINGS, signal }, async ({ key, size, modified }) => {
    const record = parseRepositoryKey(key);
    if (record === undefined) return;
    if ('tag' in record) {
      if (wasThere(modified, options) && tags?.has(`${record.repository}:${record.tag}`) === false) throw differing(key);
      return;
    }
    if (!('member' in record) || !isManifestRecord(size)) return;
    const { member, repository } = record;
    const image = byDigest.get(member);
    if (!wasThere(modified, options)) {
      if (image === undefined) arrived.add(member);
    } else if (image !== undefined) {
      if (!image.places.some((place) => place.repository === repository)) throw differing(key);
    } else if (blobs.find(member) === -1) {
      const found = await lookUp(store, member, { signal });
      if (found !== undefined && wasThere(found.modified, options)) throw differing(blobKey(member));
    }
  });
}

/** Looks a blob up several times. @returns undefined if every response says that it is absent */
export async function lookUp(store: Store, digest: Digest, context: StoreContext): Promise<StoredObject | undefined> {
  for (let lookup = 0; lookup < LOOKUPS; lookup++) {
    const found = await store.stat(blobKey(digest), context);
    if (found !== undefined) return found;
  }
  return undefined;
}

function namesIn(tags: TagsByImage): Set<string> {
  const names = new Set<string>();
  for (const [image, own] of tags) for (const tag of own) names.add(`${image.slice(0, image.indexOf('@'))}:${tag}`);
  return names;
}

/** Checks that no image was used on a later day than the inventory says. */
async function confirmUses(store: Store, { byDigest }: Inventory, options: ConfirmOptions): Promise<void> {
  await listAgain(store, { prefix: USES, times: REPEATED_USE_LISTINGS, signal: options.signal }, ({ key, modified }) => {
    const use = parseUsedKey(key);
    if (use === undefined || !wasThere(modified, options)) return;
    const place = byDigest.get(use.digest)?.places.find(({ repository }) => repository === use.repository);
    if (place !== undefined && use.day > place.lastDay) throw differing(key);
  });
}

/** Reads the blobs that no image names. If one of them is a manifest, listings may have left out
 *  its record. */
async function confirmOrphans(store: Store, { blobs, images }: Inventory, options: ConfirmOptions): Promise<void> {
  const { signal, started, grace, parallel } = options;
  const references = countReferences(blobs, images);
  function* orphans(): Generator<Digest> {
    for (let blob = 0; blob < blobs.count(); blob++) {
      const isOld = started - blobs.modified(blob) >= grace;
      if (references[blob] === 0 && isOld && blobs.size(blob) <= MAX_MANIFEST_SIZE) yield blobs.digest(blob);
    }
  }
  const manifests = new Set<Digest>();
  await inParallel(orphans(), parallel, async (digest) => {
    const content = await readManifest(store, digest, { signal });
    if (content === undefined && (await isListed(store, digest, signal))) throw hidden(digest);
    if (content === undefined || content === 'corrupt') return;
    if (content.manifests.length + content.blobs.length > 0) manifests.add(digest);
  });
  if (manifests.size === 0) return;
  await listAgain(store, { prefix: REPOSITORIES, times: REPEATED_ORPHAN_LISTINGS, signal }, ({ key, size }) => {
    const record = parseRepositoryKey(key);
    if (record === undefined || !('member' in record) || !isManifestRecord(size)) return;
    if (manifests.has(record.member)) throw differing(key);
  });
}

/** Whether one of several listings has the blob. */
async function isListed(store: Store, digest: Digest, signal: AbortSignal): Promise<boolean> {
  for (let lookup = 0; lookup < LOOKUPS; lookup++) {
    for await (const { key } of store.list(blobKey(digest), { signal })) if (key === blobKey(digest)) return true;
  }
  return false;
}

/** The error for a blob that the store lists but does not return. */
export function hidden(digest: Digest): OciError {
  return new OciError('UNAVAILABLE', `the store lists ${digest} and says that it is absent; pruning stops here`, { origin: 'storage' });
}

function differing(key: string): OciError {
  const message = `two listings of the store differ in ${key}: something between the registry and the store leaves keys out; nothing was removed`;
  return new OciError('UNAVAILABLE', message, { origin: 'storage' });
}
