import { randomBytes, type Hash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { agrees, createDigestHash, splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { Chunk, UploadId } from '../oci/push-registry.ts';
import type { Repository } from '../oci/reference.ts';
import { blobKey, parseUploadChunkKey, uploadChunkKey, uploadPrefix, uploadStartKey } from '../store/keys.ts';
import { bytesSource } from '../store/store.ts';
import type { UploadPart, UploadStore } from '../store/upload-store.ts';

/** An upload, by where it is kept: any replica over the same store may go on with it. */
export interface Place {
  repository: Repository;
  id: UploadId;
}

/** What this process has hashed of an upload, so that nothing is read back that it has seen whole. */
interface Progress {
  hash: Hash;
  /** Bytes hashed, from the first on. */
  hashed: number;
}

export interface Uploads {
  start(repository: Repository, signal: AbortSignal): Promise<UploadId>;
  /** @returns the number of bytes that are there. @throws OciError BLOB_UPLOAD_UNKNOWN */
  size(place: Place, signal: AbortSignal): Promise<number>;
  /** @returns the number of bytes that are there now. @throws OciError as PushRegistry.appendChunk */
  append(place: Place, chunk: Chunk, signal: AbortSignal): Promise<number>;
  /** Makes the blob of what was uploaded, which stays until it is removed.
   *  @returns its size. @throws OciError as PushRegistry.finishUpload */
  finish(place: Place, digest: Digest, signal: AbortSignal): Promise<number>;
  /** Forgets an upload. One that is not there is no error. */
  remove(place: Place, signal: AbortSignal): Promise<void>;
  /** Stores a blob that comes in one piece. @returns its size. @throws OciError DIGEST_INVALID, SIZE_INVALID */
  put(digest: Digest, chunk: Chunk, signal: AbortSignal): Promise<number>;
}

export interface UploadsOptions {
  store: UploadStore;
  /** Bytes; a larger blob is refused. */
  maxBlobSize: number;
}

/** Uploads whose hash is kept in memory; of others, the bytes are read back when they end. */
const MAX_PROGRESS = 10_000;

/** Keeps uploads in the store, an object for each chunk: what was acknowledged is durable, and known to every replica. */
export function createUploads({ store, maxBlobSize }: UploadsOptions): Uploads {
  const progress = new LRUCache<UploadId, Progress>({ max: MAX_PROGRESS });

  /** The chunks of an upload that follow each other without a gap. */
  async function listChunks({ repository, id }: Place, signal: AbortSignal): Promise<UploadPart[]> {
    const parts: UploadPart[] = [];
    let end = 0;
    let isKnown = false;
    for await (const { key, size } of store.list(uploadPrefix(repository, id), { signal })) {
      isKnown = true;
      if (parseUploadChunkKey(key) !== end) continue;
      parts.push({ key, size });
      end += size;
    }
    if (!isKnown)
      throw new OciError('BLOB_UPLOAD_UNKNOWN', 'there is no such upload in this repository: it has ended, or was given up; start another');
    return parts;
  }

  function remember(id: UploadId, start: number): Progress | undefined {
    const known = progress.get(id) ?? (start === 0 ? { hash: createDigestHash(SHA256), hashed: 0 } : undefined);
    return known?.hashed === start ? known : undefined;
  }

  async function append(place: Place, chunk: Chunk, signal: AbortSignal): Promise<number> {
    const size = sizeOf(await listChunks(place, signal));
    if (chunk.start !== undefined && chunk.start !== size) {
      throw new OciError('RANGE_INVALID', `the upload stands at ${size} bytes, and the chunk begins at ${chunk.start}`, { size });
    }
    const known = remember(place.id, size);
    progress.delete(place.id); // until this chunk is stored, the hash is ahead of the upload
    const hash = known?.hash;
    const body = counted(chunk, { start: size, maxSize: maxBlobSize, onChunk: (bytes) => hash?.update(bytes) });
    const length = await store.writeStream(uploadChunkKey(place.repository, place.id, size), body, { signal, ...sizeOfChunk(chunk) });
    if (length === 0) await store.remove(uploadChunkKey(place.repository, place.id, size), { signal });
    if (hash !== undefined) progress.set(place.id, { hash, hashed: size + length });
    return size + length;
  }

  async function readBack(parts: readonly UploadPart[], digest: Digest, signal: AbortSignal): Promise<boolean> {
    const hash = createDigestHash(digest);
    for (const { key } of parts) {
      const found = await store.read(key, { signal });
      if (found === undefined) throw new OciError('BLOB_UPLOAD_INVALID', 'a chunk of the upload is missing: start another upload');
      for await (const bytes of found.body) hash.update(bytes);
    }
    return agrees(hash, digest);
  }

  async function remove({ repository, id }: Place, signal: AbortSignal): Promise<void> {
    progress.delete(id);
    const keys: string[] = [];
    for await (const { key } of store.list(uploadPrefix(repository, id), { signal })) keys.push(key);
    // The start goes last: without it, a chunk that is left would look like an upload of nothing.
    for (const key of keys) await store.remove(key, { signal });
  }

  return {
    async start(repository, signal) {
      const id = randomBytes(16).toString('hex') as UploadId;
      await store.write(uploadStartKey(repository, id), bytesSource(Buffer.alloc(0)), { signal });
      return id;
    },

    size: async (place, signal) => sizeOf(await listChunks(place, signal)),
    append,

    async finish(place, digest, signal) {
      const parts = await listChunks(place, signal);
      const size = sizeOf(parts);
      const known = progress.get(place.id);
      const isHashed = known?.hashed === size && splitDigest(digest).algorithm === 'sha256';
      const agreed = isHashed ? agrees(known.hash.copy(), digest) : await readBack(parts, digest, signal);
      if (!agreed) {
        await remove(place, signal);
        throw wrongDigest(digest);
      }
      const stored = await store.stat(blobKey(digest), { signal });
      if (stored?.size !== size) await store.compose(parts, blobKey(digest), { signal });
      return size;
    },

    remove,

    async put(digest, chunk, signal) {
      const hash = createDigestHash(digest);
      async function* verified(): AsyncGenerator<Uint8Array> {
        yield* counted(chunk, { start: 0, maxSize: maxBlobSize, onChunk: (bytes) => hash.update(bytes) });
        if (!agrees(hash, digest)) throw wrongDigest(digest);
      }
      return store.writeStream(blobKey(digest), verified(), { signal, ...sizeOfChunk(chunk) });
    },
  };
}

/** Only its algorithm matters: clients name the digest at the end of an upload, and nearly all of them use this one. */
const SHA256 = `sha256:${'0'.repeat(64)}` as Digest;

function sizeOfChunk({ length }: Chunk): { size?: number } {
  return length === undefined ? {} : { size: length };
}

function sizeOf(parts: readonly UploadPart[]): number {
  return parts.reduce((sum, { size }) => sum + size, 0);
}

function wrongDigest(digest: Digest): OciError {
  return new OciError('DIGEST_INVALID', `the uploaded bytes do not have the digest ${digest}; nothing was stored`);
}

interface Counting {
  start: number;
  maxSize: number;
  onChunk(this: void, bytes: Uint8Array): unknown;
}

/** @throws OciError SIZE_INVALID: another length than announced, or too large a blob */
async function* counted({ body, length }: Chunk, { start, maxSize, onChunk }: Counting): AsyncGenerator<Uint8Array> {
  let size = 0;
  for await (const bytes of body) {
    size += bytes.length;
    if (length !== undefined && size > length) throw new OciError('SIZE_INVALID', `the chunk has more than the ${length} bytes announced`);
    if (start + size > maxSize) throw new OciError('SIZE_INVALID', `the blob has more than the ${maxSize} bytes allowed`);
    onChunk(bytes);
    yield bytes;
  }
  if (length !== undefined && size < length) throw new OciError('SIZE_INVALID', `the chunk has ${size} of the ${length} bytes announced`);
}
