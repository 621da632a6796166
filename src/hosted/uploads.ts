import { randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { inParallel } from '../async/parallel.ts';
import { createRunningHash, type RunningHash } from '../io/running-hash.ts';
import { agrees, createDigestHash, splitDigest, type Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import type { Chunk, UploadId } from '../oci/push-registry.ts';
import type { Repository } from '../oci/reference.ts';
import type { Claimer } from '../store/claims.ts';
import { blobKey, parseUploadChunkKey, uploadChunkKey, uploadPrefix, uploadStartKey } from '../store/keys.ts';
import { bytesSource } from '../store/store.ts';
import type { SmallObject, UploadPart, UploadStore } from '../store/upload-store.ts';
import { counted } from './counted-chunk.ts';
import type { Room } from './quota.ts';

/** Identifies an upload in the store: any replica over the same store may continue it. */
export interface Place {
  repository: Repository;
  id: UploadId;
}

/** The running hash of an upload, so that bytes that passed through this process are not read
 *  back. */
interface Progress {
  hash: RunningHash;
  /** The chunks hashed, from the first on. A key names the same bytes forever. */
  parts: readonly UploadPart[];
}

interface StoredChunk extends UploadPart {
  /** The position of its first byte. */
  start: number;
}

export interface Uploads {
  start(repository: Repository, signal: AbortSignal): Promise<UploadId>;
  /** @returns the number of bytes uploaded so far. @throws OciError BLOB_UPLOAD_UNKNOWN */
  size(place: Place, signal: AbortSignal): Promise<number>;
  /** @param room for the whole upload. @returns the number of bytes uploaded so far.
   *  @throws OciError as PushRegistry.appendChunk; DENIED: there is no room for them */
  append(place: Place, chunk: Chunk, context: { room: Room; signal: AbortSignal }): Promise<number>;
  /** Compares the uploaded bytes with their digest. @throws OciError BLOB_UPLOAD_UNKNOWN,
   *  DIGEST_INVALID */
  verify(place: Place, digest: Digest, signal: AbortSignal): Promise<VerifiedUpload>;
  /** Creates the blob from the verified upload, which stays until it is removed, and then the
   *  record. @throws OciError BLOB_UPLOAD_UNKNOWN: it was cancelled meanwhile */
  store(upload: VerifiedUpload, digest: Digest, context: { record: Promise<SmallObject | undefined>; signal: AbortSignal }): Promise<void>;
  /** Protects a stored blob from a pruning that may be about to remove it. @returns its size;
   *  undefined if it is not stored */
  claimStored(digest: Digest, signal: AbortSignal): Promise<number | undefined>;
  /** Removes an upload. A missing upload is not an error. */
  remove(place: Place, signal: AbortSignal): Promise<void>;
  /** Removes an upload that has become a blob. What cannot be removed is removed after a day.
   *  @param parts all of its chunks */
  end(this: void, place: Place, parts: readonly UploadPart[]): Promise<void>;
  /** Stores a blob from one request. @returns its size. @throws OciError DIGEST_INVALID,
   *  SIZE_INVALID; DENIED: there is no room for it */
  put(digest: Digest, chunk: Chunk, context: { room: Room; signal: AbortSignal }): Promise<number>;
}

/** An upload whose digest was verified. */
export interface VerifiedUpload {
  place: Place;
  parts: readonly UploadPart[];
  /** Bytes. */
  size: number;
}

export interface UploadsOptions {
  store: UploadStore;
  claimer: Claimer;
  /** Bytes; a larger blob is refused. */
  maxBlobSize: number;
}

/** Number of uploads whose hash is kept in memory; other uploads are read back when they end. */
const MAX_PROGRESS = 10_000;
const REMOVALS_AT_ONCE = 16;
const REMOVAL_TIMEOUT_MS = 60_000;

/** Keeps uploads in the store, one object per chunk, which every replica sees. A power failure may
 *  lose chunks, but no finished blob. */
export function createUploads(options: UploadsOptions): Uploads {
  const { store } = options;
  const uploads: OpenUploads = {
    ...options,
    progress: new LRUCache({
      max: MAX_PROGRESS,
      dispose: ({ hash }, _, reason) => {
        if (reason === 'evict') hash.close();
      },
    }),
    ended: new LRUCache({ max: MAX_PROGRESS }),
  };
  return {
    async start(repository, signal) {
      const id = randomBytes(16).toString('hex') as UploadId;
      await store.write(uploadStartKey(repository, id), bytesSource(Buffer.alloc(0)), { signal, volatile: true });
      return id;
    },
    size: async (place, signal) => sizeOf(await listParts(uploads, place, signal)),
    append: (place, chunk, how) => append(uploads, place, { chunk, ...how }),
    verify: (place, digest, signal) => verify(uploads, { place, digest }, signal),
    async store({ place, parts, size }, digest, { record, signal }) {
      const [stored, following] = await Promise.all([claimStored(uploads, digest, signal), record]);
      if (stored === size) {
        if (following !== undefined) await store.writeInOrder([following], { signal });
        return;
      }
      try {
        await store.writeInOrder([{ key: blobKey(digest), parts }, ...(following === undefined ? [] : [following])], { signal });
      } catch (error) {
        await listChunks(uploads, place, signal); // throws if the upload was cancelled
        throw error;
      }
    },
    claimStored: (digest, signal) => claimStored(uploads, digest, signal),
    remove: (place, signal) => remove(uploads, place, signal),
    end: (place, parts) => end(uploads, place, parts),
    put: (digest, chunk, how) => put(uploads, digest, { chunk, ...how }),
  };
}

interface OpenUploads extends UploadsOptions {
  progress: LRUCache<UploadId, Progress>;
  /** Uploads that have become blobs, and may not have been removed. */
  ended: LRUCache<UploadId, true>;
}

async function append(
  uploads: OpenUploads,
  place: Place,
  { chunk, room, signal }: { chunk: Chunk; room: Room; signal: AbortSignal },
): Promise<number> {
  const { store, progress, maxBlobSize } = uploads;
  const parts = await listParts(uploads, place, signal);
  const start = sizeOf(parts);
  if (chunk.start !== undefined && chunk.start !== start) throw standsAt(start, chunk.start);
  if (chunk.length === 0) return start;
  const known = takeHash(uploads, place.id, parts);
  const hash = known ?? createRunningHash('sha256'); // of no use, as others' chunks are missing
  let isKept = false;
  try {
    const body = counted(chunk, { start, room, maxSize: maxBlobSize });
    const key = uploadChunkKey(place.repository, place.id, { start, nonce: randomBytes(8).toString('hex') });
    const size = await store.writeStream(key, body, { signal, volatile: true, hash, ...sizeOfChunk(chunk) });
    if (size === 0 || !(await isAlone(uploads, place, { key, start, signal }))) {
      await store.remove(key, { signal });
      if (size === 0) return start;
      throw standsAt(sizeOf(await listParts(uploads, place, signal)), start);
    }
    if (known !== undefined) {
      forget(uploads, place.id);
      progress.set(place.id, { hash, parts: [...parts, { key, size }] });
      isKept = true;
    }
    return start + size;
  } finally {
    if (!isKept) hash.close();
  }
}

/** Takes the hash of an upload that has exactly these chunks: until the next chunk is stored, the
 *  hash is ahead of the upload. */
function takeHash({ progress }: OpenUploads, id: UploadId, parts: readonly UploadPart[]): RunningHash | undefined {
  if (parts.length === 0) return createRunningHash('sha256'); // nearly all digests are sha256
  const known = progress.get(id);
  if (known === undefined || !isHashOf(known, parts)) return undefined;
  progress.delete(id);
  return known.hash;
}

/** Whether a chunk that was just stored counts. If two chunks begin at the same byte, at least
 *  the one stored later sees the other, and is removed.
 *  @throws OciError BLOB_UPLOAD_UNKNOWN, with the chunk removed */
async function isAlone(
  uploads: OpenUploads,
  place: Place,
  { key, start, signal }: { key: string; start: number; signal: AbortSignal },
): Promise<boolean> {
  try {
    const chunks = await listChunks(uploads, place, signal);
    return chunks.every((other) => other.key === key || other.start !== start);
  } catch (error) {
    if (isOciError(error, 'BLOB_UPLOAD_UNKNOWN')) await uploads.store.remove(key, { signal });
    throw error;
  }
}

/** The contiguous chunks of an upload, from its start. @throws OciError BLOB_UPLOAD_UNKNOWN */
async function listParts(uploads: OpenUploads, place: Place, signal: AbortSignal): Promise<UploadPart[]> {
  const parts: UploadPart[] = [];
  let end = 0;
  for (const { key, size, start } of await listChunks(uploads, place, signal)) {
    if (start !== end) continue;
    parts.push({ key, size });
    end += size;
  }
  return parts;
}

/** Every chunk of an upload, in the order of their starts. @throws OciError BLOB_UPLOAD_UNKNOWN
 *  */
async function listChunks({ store, ended }: OpenUploads, { repository, id }: Place, signal: AbortSignal): Promise<StoredChunk[]> {
  const chunks: StoredChunk[] = [];
  let isKnown = false;
  for await (const { key, size } of store.list(uploadPrefix(repository, id), { signal })) {
    const start = parseUploadChunkKey(key);
    if (start !== undefined) chunks.push({ key, size, start });
    // A chunk that came after the upload was removed does not bring it back.
    else isKnown ||= key === uploadStartKey(repository, id);
  }
  if (!isKnown || ended.has(id))
    throw new OciError('BLOB_UPLOAD_UNKNOWN', 'there is no such upload in this repository: it was finished or abandoned; start another');
  return chunks;
}

async function verify(
  uploads: OpenUploads,
  { place, digest }: { place: Place; digest: Digest },
  signal: AbortSignal,
): Promise<VerifiedUpload> {
  const known = uploads.progress.get(place.id);
  // If the bytes hashed here are the blob, it does not matter what another replica has added.
  const isKnown = known !== undefined && (await known.hash.agrees(digest).catch(() => false)); // its worker has ended
  if (isKnown) return { place, parts: known.parts, size: sizeOf(known.parts) };
  const parts = await listParts(uploads, place, signal);
  if (!(await readBack(uploads, { parts, digest }, signal))) throw wrongDigest(digest);
  return { place, parts, size: sizeOf(parts) };
}

/** Whether the chunks, read from the store, have this digest. @throws OciError BLOB_UPLOAD_INVALID */
async function readBack(
  { store }: OpenUploads,
  { parts, digest }: { parts: readonly UploadPart[]; digest: Digest },
  signal: AbortSignal,
): Promise<boolean> {
  const hash = createDigestHash(digest);
  for (const { key } of parts) {
    const found = await store.read(key, { signal });
    if (found === undefined) throw new OciError('BLOB_UPLOAD_INVALID', 'a chunk of the upload is missing: start another upload');
    for await (const bytes of found.body) hash.update(bytes);
  }
  return agrees(hash, digest);
}

async function claimStored({ store, claimer }: OpenUploads, digest: Digest, signal: AbortSignal): Promise<number | undefined> {
  const stored = await store.stat(blobKey(digest), { signal });
  if (stored === undefined) return undefined;
  await claimer.claim([digest], signal);
  return (await store.stat(blobKey(digest), { signal }))?.size;
}

async function put(
  uploads: OpenUploads,
  digest: Digest,
  { chunk, room, signal }: { chunk: Chunk; room: Room; signal: AbortSignal },
): Promise<number> {
  const { store, maxBlobSize } = uploads;
  await claimStored(uploads, digest, signal);
  const hash = createRunningHash(splitDigest(digest).algorithm);
  const check = async (): Promise<void> => {
    if (!(await hash.agrees(digest))) throw wrongDigest(digest);
  };
  const body = counted(chunk, { start: 0, room, maxSize: maxBlobSize });
  try {
    return await store.writeStream(blobKey(digest), body, { signal, hash, check, ...sizeOfChunk(chunk) });
  } finally {
    hash.close();
  }
}

async function remove(uploads: OpenUploads, { repository, id }: Place, signal: AbortSignal): Promise<void> {
  const { store } = uploads;
  forget(uploads, id);
  const keys: string[] = [];
  for await (const { key } of store.list(uploadPrefix(repository, id), { signal })) keys.push(key);
  await inParallel(keys, REMOVALS_AT_ONCE, (key) => store.remove(key, { signal }));
}

async function end(uploads: OpenUploads, { repository, id }: Place, parts: readonly UploadPart[]): Promise<void> {
  const { store, ended } = uploads;
  forget(uploads, id);
  ended.set(id, true);
  const keys = [...parts.map(({ key }) => key), uploadStartKey(repository, id)];
  const signal = AbortSignal.timeout(REMOVAL_TIMEOUT_MS);
  await inParallel(keys, REMOVALS_AT_ONCE, (key) => store.remove(key, { signal })).catch(() => undefined); // a later cleaning removes them
}

function forget({ progress }: OpenUploads, id: UploadId): void {
  progress.get(id)?.hash.close();
  progress.delete(id);
}

function sizeOfChunk({ length }: Chunk): { size?: number } {
  return length === undefined ? {} : { size: length };
}

function sizeOf(parts: readonly UploadPart[]): number {
  return parts.reduce((sum, { size }) => sum + size, 0);
}

function wrongDigest(digest: Digest): OciError {
  return new OciError('DIGEST_INVALID', `the uploaded bytes do not have the digest ${digest}; nothing was stored`);
}

/** Whether exactly these chunks were hashed. */
function isHashOf({ parts: hashed }: Progress, parts: readonly UploadPart[]): boolean {
  return hashed.length === parts.length && parts.every(({ key }, at) => key === hashed[at]?.key);
}

function standsAt(size: number, start: number): OciError {
  return new OciError('RANGE_INVALID', `the upload has ${size} bytes, but the chunk begins at ${start}`, { size });
}
