import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import type { Digest } from '../oci/digest.ts';
import { isOciError, OciError } from '../oci/error.ts';
import type { Chunk, PushRegistry } from '../oci/push-registry.ts';
import type { Repository } from '../oci/reference.ts';
import { blobKey, ownerKey, ownersPrefix, parseOwnerKey } from '../store/keys.ts';
import { bytesSource } from '../store/store.ts';
import type { Contents } from './contents.ts';
import { UNLIMITED, type Held, type Quota, type Room } from './quota.ts';
import type { SmallObject, UploadPart } from '../store/upload-store.ts';
import { createUploads, type Place } from './uploads.ts';

export interface BlobWriterOptions {
  /** Bytes. */
  maxBlobSize: number;
  quota: Quota;
}

type BlobWriter = Pick<
  PushRegistry,
  | 'startUpload'
  | 'uploadedSize'
  | 'appendChunk'
  | 'finishUpload'
  | 'cancelUpload'
  | 'putBlob'
  | 'mountBlob'
  | 'repositoriesWith'
  | 'deleteBlob'
>;

function sweptAway(digest: Digest): OciError {
  return new OciError('UNAVAILABLE', `pruning has removed ${digest} in the meantime; push it again`, { origin: 'storage', retryAfter: 1 });
}

/** Writes blobs into hosted repositories. */
export function createBlobWriter(contents: Contents, { maxBlobSize, quota }: BlobWriterOptions): BlobWriter {
  const { store, records, claimer, removeUnnamed } = contents;
  const uploads = createUploads({ store, claimer, maxBlobSize });

  /** Runs `work`, which stores `size` bytes under `digest`, or as many as there is `room` for.
   *  Content that the repository already has does not count against its quota again. */
  async function withinQuota<Result>(
    { digest, ...held }: Held & { digest: Digest },
    work: (room: Room) => Promise<Result>,
  ): Promise<Result> {
    const room = await quota.room(held.repository, held.signal);
    const isFree = room.bytes === Infinity || (await records.content(held.repository, digest, held.signal)) !== undefined;
    return isFree ? work(UNLIMITED) : quota.hold(held, () => work(room));
  }

  async function putBlob(
    repository: Repository,
    digest: Digest,
    { chunk, signal }: { chunk: Chunk; signal: AbortSignal },
  ): Promise<Descriptor> {
    const add = (size: number) => addBlob(contents, { repository, descriptor: { digest, mediaType: BLOB_MEDIA_TYPE, size } }, { signal });
    const { length } = chunk;
    if (length === undefined) {
      const room = await quota.room(repository, signal);
      const size = await uploads.put(digest, chunk, { room, signal });
      return withinQuota({ repository, digest, size, signal }, () => add(size));
    }
    return withinQuota({ repository, digest, size: length, signal }, async (room) =>
      add(await uploads.put(digest, chunk, { room, signal })),
    );
  }

  /** Whether the last chunk of an upload is all of it. @throws OciError BLOB_UPLOAD_UNKNOWN */
  async function isWhole(place: Place, { start = 0 }: Chunk, signal: AbortSignal): Promise<boolean> {
    return start === 0 && (await uploads.size(place, signal)) === 0;
  }

  async function finishParts(
    place: Place,
    digest: Digest,
    { chunk, signal }: { chunk: Chunk | undefined; signal: AbortSignal },
  ): Promise<{ descriptor: Descriptor; parts: readonly UploadPart[] }> {
    const { repository } = place;
    if (chunk !== undefined) await uploads.append(place, chunk, { room: await quota.room(repository, signal), signal });
    const upload = await uploads.verify(place, digest, signal);
    const { size } = upload;
    const descriptor = { digest, mediaType: BLOB_MEDIA_TYPE, size };
    await withinQuota({ repository, digest, size, signal }, async () => {
      const store: AddOptions['store'] = (record) => uploads.store(upload, digest, { record, signal });
      await addBlob(contents, { repository, descriptor }, { store, signal });
    });
    return { descriptor, parts: upload.parts };
  }

  return {
    startUpload: (repository, { signal }) => uploads.start(repository, signal),
    uploadedSize: (repository, id, { signal }) => uploads.size({ repository, id }, signal),

    async appendChunk(repository, id, { chunk, signal }) {
      return uploads.append({ repository, id }, chunk, { room: await quota.room(repository, signal), signal });
    },

    async finishUpload(repository, id, { digest, chunk, signal }) {
      const place = { repository, id };
      try {
        const stored = await (chunk !== undefined && (await isWhole(place, chunk, signal))
          ? putBlob(repository, digest, { chunk, signal }).then((descriptor) => ({ descriptor, parts: [] }))
          : finishParts(place, digest, { chunk, signal }));
        await uploads.end(place, stored.parts);
        return stored.descriptor;
      } catch (error) {
        // A retry would fail the same way, so the upload is removed.
        if (isOciError(error, 'DENIED', 'DIGEST_INVALID')) await uploads.remove(place, signal);
        throw error;
      }
    },

    async cancelUpload(repository, id, { signal }) {
      const place = { repository, id };
      await uploads.size(place, signal); // throws if there is no such upload
      await uploads.remove(place, signal);
    },

    putBlob,

    async mountBlob(repository, digest, { from, signal }) {
      for (const source of from) {
        const found = await records.content(source, digest, signal);
        const size = found === undefined ? undefined : await uploads.claimStored(digest, signal);
        if (size === undefined) continue;
        const descriptor = { digest, mediaType: BLOB_MEDIA_TYPE, size };
        return withinQuota({ repository, digest, size, signal }, () => addBlob(contents, { repository, descriptor }, { signal }));
      }
      return undefined;
    },

    async *repositoriesWith(digest, { signal }) {
      for await (const { key } of store.list(ownersPrefix(digest), { signal })) {
        const owner = parseOwnerKey(key, digest);
        if (owner !== undefined) yield owner;
      }
    },

    async deleteBlob(repository, digest, { signal }) {
      const found = await records.content(repository, digest, signal);
      if (found?.mediaType !== BLOB_MEDIA_TYPE) throw new OciError('BLOB_UNKNOWN', `${repository} has no blob ${digest}`);
      await removeUnnamed(repository, found, signal);
      await store.remove(ownerKey(digest, repository), { signal });
    },
  };
}

interface AddOptions {
  /** Stores the blob, and then the record; absent: the blob is stored. */
  store?(this: void, record: Promise<SmallObject | undefined>): Promise<void>;
  signal: AbortSignal;
}

/** Records that a repository has a blob. */
async function addBlob(
  { store, records, claimer }: Pick<Contents, 'store' | 'records' | 'claimer'>,
  { repository, descriptor }: { repository: Repository; descriptor: Descriptor },
  { store: storeBlob, signal }: AddOptions,
): Promise<Descriptor> {
  const { digest } = descriptor;
  async function makeRecord(): Promise<SmallObject | undefined> {
    const [known] = await Promise.all([
      records.content(repository, digest, signal),
      // Without it, a mount that names no repository does not find the blob, and the client
      // uploads it.
      store.write(ownerKey(digest, repository), bytesSource(Buffer.alloc(0)), { signal, volatile: true }),
    ]);
    // A pushed manifest stays a manifest, even if a client pushes it as a blob too. The record of
    // a blob is written again, since a pruning that has removed the blob also removes its old
    // records.
    const isBlob = known === undefined || known.mediaType === BLOB_MEDIA_TYPE;
    return isBlob ? records.contentRecord(repository, descriptor) : undefined;
  }
  async function writeRecord(making: Promise<SmallObject | undefined>): Promise<void> {
    const record = await making;
    if (record !== undefined) await store.writeInOrder([record], { signal });
  }
  await (storeBlob ?? writeRecord)(makeRecord());
  if (await claimer.awaitSweeps([digest], signal)) {
    await writeRecord(makeRecord());
    if ((await store.stat(blobKey(digest), { signal })) === undefined) throw sweptAway(digest);
  }
  return descriptor;
}
