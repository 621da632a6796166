import { BLOB_MEDIA_TYPE, MAX_MANIFEST_SIZE, parseManifest, type ManifestContent } from '../oci/descriptor.ts';
import { digestOf, splitDigest, type Digest } from '../oci/digest.ts';
import { readAll } from '../io/body.ts';
import { isOciError } from '../oci/error.ts';
import type { Repository } from '../oci/reference.ts';
import {
  blobKey,
  BLOBS,
  isManifestRecord,
  memberKey,
  parseBlobKey,
  parseRepositoryKey,
  parseUsedKey,
  REPOSITORIES,
  USES,
} from '../store/keys.ts';
import type { Store, StoreContext } from '../store/store.ts';
import { createBlobTable, type BlobTable } from './blob-table.ts';
import { inParallel } from '../async/parallel.ts';

/** In bytes; a larger object is not a record. */
const MAX_RECORD_SIZE = 65_536;

/** A manifest or an index in the store, with all its known properties. */
export interface Image {
  digest: Digest;
  /** The number of the manifest's own blob. */
  blob: number;
  /** The repositories that may serve it. */
  places: Place[];
  /** The numbers of the stored blobs and manifests that it names, each once. */
  names: Uint32Array;
  /** Digests that it names but the store does not have. */
  missing: Digest[];
  /** Whether it is an index: it names manifests. */
  isIndex: boolean;
  /** The manifest that an artifact, such as a signature, is about. */
  subject: Digest | undefined;
  /** Its bytes do not match its digest; then it names nothing. */
  corrupt: boolean;
}

export interface Place {
  repository: Repository;
  /** The number of days on which it was pulled, as far as recorded. */
  days: number;
  /** The last of these days (UTC), such as 2026-03-01; empty: none is recorded. */
  lastDay: string;
  /** When the record of that day was written, in ms since the epoch. */
  usedAt: number;
}

/** The content of a store. */
export interface Inventory {
  blobs: BlobTable;
  images: Image[];
  /** By digest. */
  byDigest: ReadonlyMap<Digest, Image>;
  /** Manifests that the store listed, but reported as absent when they were read. */
  absent: ReadonlySet<Digest>;
  /** The number of tag records. */
  tags: number;
}

export interface InventoryOptions {
  signal: AbortSignal;
  /** The number of manifests to read concurrently. */
  parallel?: number;
  /** Called with each manifest that has been read. */
  read?(image: Image, content: ManifestContent): void;
  progress?(done: number, total: number): void;
}

/** Lists the store and reads its manifests. Takes about 50 bytes of memory per blob and a few
 *  hundred per manifest.
 *  @throws OciError UNAVAILABLE: the store cannot be listed or read. A failure is never taken for
 *  an absence. */
export async function takeInventory(store: Store, options: InventoryOptions): Promise<Inventory> {
  const { signal } = options;
  // Blobs come first: one that arrives while this runs is unknown here, and is therefore not
  // removed.
  const blobs = createBlobTable();
  for await (const { key, size, modified } of store.list(BLOBS, { signal })) {
    const digest = parseBlobKey(key);
    if (digest !== undefined) blobs.add(digest, size, modified.getTime());
  }
  const { byDigest, tags } = await listImages(store, blobs, signal);
  await noteUses(store, byDigest, signal);
  const absent = new Set<Digest>();
  const total = byDigest.size;
  let done = 0;
  await inParallel([...byDigest.values()], options.parallel ?? 16, async (image) => {
    const found = await readImage(store, image, { ...options, blobs });
    if (found === 'absent') absent.add(image.digest);
    if (found !== 'image') byDigest.delete(image.digest);
    options.progress?.(++done, total);
  });
  return { blobs, images: [...byDigest.values()], byDigest, absent, tags };
}

async function listImages(store: Store, blobs: BlobTable, signal: AbortSignal): Promise<{ byDigest: Map<Digest, Image>; tags: number }> {
  const byDigest = new Map<Digest, Image>();
  let tags = 0;
  for await (const { key, size } of store.list(REPOSITORIES, { signal })) {
    const record = parseRepositoryKey(key);
    if (record === undefined) continue;
    if ('tag' in record) {
      tags++;
      continue;
    }
    if ('subject' in record) continue;
    const digest = record.member;
    const blob = isManifestRecord(size) ? blobs.find(digest) : -1;
    if (blob === -1) continue;
    const image = byDigest.get(digest) ?? createImage(digest, blob);
    byDigest.set(digest, image);
    image.places.push({ repository: record.repository, days: 0, lastDay: '', usedAt: 0 });
  }
  return { byDigest, tags };
}

function createImage(digest: Digest, blob: number): Image {
  return { digest, blob, places: [], names: new Uint32Array(), missing: [], isIndex: false, subject: undefined, corrupt: false };
}

async function noteUses(store: Store, byDigest: ReadonlyMap<Digest, Image>, signal: AbortSignal): Promise<void> {
  for await (const { key, modified } of store.list(USES, { signal })) {
    const use = parseUsedKey(key);
    const place = use && byDigest.get(use.digest)?.places.find(({ repository }) => repository === use.repository);
    if (use === undefined || place === undefined) continue;
    place.days++;
    place.lastDay = use.day; // days come in order
    place.usedAt = modified.getTime();
  }
}

/** @returns the stored content of the image's digest */
async function readImage(
  store: Store,
  image: Image,
  options: InventoryOptions & { blobs: BlobTable },
): Promise<'image' | 'blob' | 'absent'> {
  const { signal, blobs } = options;
  const content = await readManifest(store, image.digest, { signal });
  if (content === undefined) return 'absent';
  const isEmpty = content === 'corrupt' || content.manifests.length + content.blobs.length === 0;
  if (isEmpty && (await isBlob(store, image, signal))) return 'blob';
  image.corrupt = content === 'corrupt';
  if (content === 'corrupt') return 'image';
  image.isIndex = content.manifests.length > 0;
  image.subject = content.subject;
  const named = new Set([...content.manifests, ...content.blobs].map(({ digest }) => digest));
  const stored = [...named].map((digest) => [digest, blobs.find(digest)] as const);
  image.names = Uint32Array.from(stored.filter(([, blob]) => blob !== -1).map(([, blob]) => blob));
  image.missing = stored.filter(([, blob]) => blob === -1).map(([digest]) => digest);
  options.read?.(image, content);
  return 'image';
}

/** Whether its records say that it is a blob and not a manifest. @throws OciError UNAVAILABLE */
async function isBlob(store: Store, { digest, places }: Image, signal: AbortSignal): Promise<boolean> {
  for (const { repository } of places) {
    const found = await store.read(memberKey(repository, digest), { signal });
    const bytes = found === undefined ? undefined : await readAll(found.body, MAX_RECORD_SIZE);
    if (bytes !== undefined && mediaTypeOf(bytes) === BLOB_MEDIA_TYPE) return true;
  }
  return false;
}

function mediaTypeOf(record: Buffer): unknown {
  try {
    return (JSON.parse(String(record)) as { mediaType?: unknown } | null)?.mediaType;
  } catch {
    return undefined; // damaged: its length decides
  }
}

/** How often a manifest is read before it counts as absent or corrupt: a response may come from a
 *  gateway instead of the store. */
const READS = 3;

/** Reads a stored manifest; undefined: it is not stored. @throws OciError UNAVAILABLE */
export async function readManifest(store: Store, digest: Digest, context: StoreContext): Promise<ManifestContent | 'corrupt' | undefined> {
  let content: ManifestContent | 'corrupt' | undefined;
  for (let read = 0; read < READS; read++) {
    const again = await readOnce(store, digest, context);
    if (again !== undefined && again !== 'corrupt') return again;
    content ??= again;
  }
  return content;
}

async function readOnce(store: Store, digest: Digest, context: StoreContext): Promise<ManifestContent | 'corrupt' | undefined> {
  const found = await store.read(blobKey(digest), context);
  if (found === undefined) return undefined;
  const bytes = await readAll(found.body, MAX_MANIFEST_SIZE);
  if (bytes === undefined || digestOf(bytes, splitDigest(digest).algorithm) !== digest) return 'corrupt';
  try {
    return parseManifest(bytes, '');
  } catch (error) {
    if (isOciError(error, 'MANIFEST_INVALID')) return 'corrupt';
    throw error;
  }
}
