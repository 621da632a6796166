import { freshRuns } from '../async/fresh-runs.ts';
import { BLOB_MEDIA_TYPE, type Descriptor } from '../oci/descriptor.ts';
import { isDigest, type Digest } from '../oci/digest.ts';
import type { Repository, Tag } from '../oci/reference.ts';
import { blobKey, memberKey, referrerKey, referrersPrefix, tagKey } from '../store/keys.ts';
import { bytesSource } from '../store/store.ts';
import type { SmallObject, UploadStore } from '../store/upload-store.ts';

/** An entry in an index of referrers (image specification, "Image Index"). */
export interface ReferrerDescriptor extends Descriptor {
  artifactType?: string;
  annotations?: Record<string, string>;
}

interface NewManifest {
  descriptor: Descriptor;
  bytes: Uint8Array;
  signal: AbortSignal;
}

const MAX_RECORD_SIZE = 4 * 2 ** 20;
/** Of calls that several requests share: the store limits their time. */
const NEVER = new AbortController().signal;

/** The records of hosted repositories, always read from the store: another replica may have written
 *  them a moment ago. Every function throws OciError UNAVAILABLE when the store cannot be read or
 *  written. */
export function createHostedRecords(store: UploadStore) {
  const readFresh = freshRuns(async (key): Promise<Readonly<Record<string, unknown>> | undefined> => {
    const bytes = await store.readSmall(key, MAX_RECORD_SIZE, { signal: NEVER });
    const record: unknown = bytes === undefined ? undefined : JSON.parse(Buffer.from(bytes).toString());
    return typeof record === 'object' && record !== null ? (record as Record<string, unknown>) : undefined;
  });

  /** As the store has it after the call. Several requests may share it, so it goes on when one of
   *  them is aborted. */
  async function read(key: string, signal: AbortSignal): Promise<Readonly<Record<string, unknown>> | undefined> {
    signal.throwIfAborted();
    const record = await readFresh(key);
    signal.throwIfAborted();
    return record;
  }

  async function write(key: string, record: object, signal: AbortSignal): Promise<void> {
    await store.write(key, bytesSource(bytesOf(record)), { signal });
  }

  /** The manifest or blob that `repository` has under a digest. */
  function content(repository: Repository, digest: Digest, signal: AbortSignal): Promise<Descriptor | undefined> {
    return read(memberKey(repository, digest), signal).then(({ mediaType, size } = {}) =>
      typeof mediaType === 'string' && typeof size === 'number' ? { digest, mediaType, size } : undefined,
    );
  }

  /** Says that `repository` has a manifest or blob. */
  function contentRecord(repository: Repository, { digest, mediaType, size }: Descriptor): SmallObject {
    return { key: memberKey(repository, digest), bytes: bytesOf({ mediaType, size }) };
  }

  return {
    content,
    contentRecord,
    /** The digest of a tag. */
    async tag(repository: Repository, tag: Tag, signal: AbortSignal): Promise<Digest | undefined> {
      const digest = (await read(tagKey(repository, tag), signal))?.['digest'];
      return typeof digest === 'string' && isDigest(digest) ? digest : undefined;
    },
    setTag: (repository: Repository, tag: Tag, digest: Digest, signal: AbortSignal) =>
      write(tagKey(repository, tag), { digest, checkedAt: new Date().toISOString() }, signal),
    removeTag: (repository: Repository, tag: Tag, signal: AbortSignal) => store.remove(tagKey(repository, tag), { signal }),

    /** The manifest that `repository` has under a digest. */
    async manifest(repository: Repository, digest: Digest, signal: AbortSignal): Promise<Descriptor | undefined> {
      const found = await content(repository, digest, signal);
      return found?.mediaType === BLOB_MEDIA_TYPE ? undefined : found;
    },
    addContent: (repository: Repository, descriptor: Descriptor, signal: AbortSignal) =>
      store.writeInOrder([contentRecord(repository, descriptor)], { signal }),
    /** Stores a manifest, and adds it to the repository. */
    addManifest(repository: Repository, { descriptor, bytes, signal }: NewManifest): Promise<void> {
      return store.writeInOrder([{ key: blobKey(descriptor.digest), bytes }, contentRecord(repository, descriptor)], { signal });
    },
    removeContent: (repository: Repository, digest: Digest, signal: AbortSignal) => store.remove(memberKey(repository, digest), { signal }),

    async *referrers(repository: Repository, subject: Digest, signal: AbortSignal): AsyncGenerator<ReferrerDescriptor> {
      for await (const { key } of store.list(referrersPrefix(repository, subject), { signal })) {
        const record = await read(key, signal);
        if (record !== undefined) yield record as unknown as ReferrerDescriptor;
      }
    },
    addReferrer: (repository: Repository, subject: Digest, descriptor: ReferrerDescriptor, signal: AbortSignal) =>
      write(referrerKey(repository, subject, descriptor.digest), descriptor, signal),
    removeReferrer: (repository: Repository, subject: Digest, digest: Digest, signal: AbortSignal) =>
      store.remove(referrerKey(repository, subject, digest), { signal }),
  };
}

function bytesOf(record: object): Buffer {
  return Buffer.from(JSON.stringify(record));
}

export type HostedRecords = ReturnType<typeof createHostedRecords>;
