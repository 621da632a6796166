import type { Descriptor } from './descriptor.ts';
import type { Digest } from './digest.ts';
import type { Reference, Repository, Tag } from './reference.ts';
import type { Registry } from './registry.ts';

/** Identifies an upload of one repository; cannot be guessed. */
export type UploadId = string & { readonly __brand: 'UploadId' };

const UPLOAD_ID = /^[0-9a-f]{32}$/;

export function isUploadId(text: string): text is UploadId {
  return UPLOAD_ID.test(text);
}

export interface PushContext {
  signal: AbortSignal;
}

/** A piece of an upload. */
export interface Chunk {
  /** The position of its first byte in the blob; undefined: directly after the bytes uploaded so
   *  far. */
  start: number | undefined;
  /** Bytes, exactly; undefined: until `body` ends. */
  length: number | undefined;
  /** The bytes, in batches. */
  body: AsyncIterable<readonly Uint8Array[]>;
}

export interface PushedManifest {
  descriptor: Descriptor;
  /** Its `subject`, which need not exist. */
  subject: Digest | undefined;
}

/** A registry that can be written to (distribution specification 1.1, "Push" and "Content
 *  Management"). When a method has resolved, its result is durable and visible on every replica. In
 *  addition to the errors of a Registry, methods throw DENIED (immutable tag, quota), and:
 *  BLOB_UPLOAD_UNKNOWN (no such upload of this repository), RANGE_INVALID (`size`: the current size
 *  of the upload), SIZE_INVALID (a chunk has another length than announced), DIGEST_INVALID (the
 *  bytes have another digest). */
export interface PushRegistry extends Registry {
  startUpload(repository: Repository, context: PushContext): Promise<UploadId>;
  /** @returns the number of bytes uploaded so far */
  uploadedSize(repository: Repository, id: UploadId, context: PushContext): Promise<number>;
  /** @returns the number of bytes uploaded so far */
  appendChunk(repository: Repository, id: UploadId, context: PushContext & { chunk: Chunk }): Promise<number>;
  /** Ends an upload: `chunk`, if any, is its last. On DIGEST_INVALID the upload has been
   *  removed. */
  finishUpload(repository: Repository, id: UploadId, context: PushContext & { digest: Digest; chunk?: Chunk }): Promise<Descriptor>;
  cancelUpload(repository: Repository, id: UploadId, context: PushContext): Promise<void>;
  /** Pushes a whole blob in one request. */
  putBlob(repository: Repository, digest: Digest, context: PushContext & { chunk: Chunk }): Promise<Descriptor>;
  /** Adds a blob to `repository` that one of the repositories `from` has, without transferring it.
   *  @returns undefined: none of them has it */
  mountBlob(
    repository: Repository,
    digest: Digest,
    context: PushContext & { from: readonly Repository[] },
  ): Promise<Descriptor | undefined>;
  /** The repositories that have a blob: the possible sources of a mount without `from`. */
  repositoriesWith(digest: Digest, context: PushContext): AsyncIterable<Repository>;
  /** @param context.tags further tags for the manifest
   *  @throws OciError MANIFEST_INVALID; MANIFEST_BLOB_UNKNOWN: something that it names is not in
   *  this repository */
  putManifest(
    repository: Repository,
    reference: Reference,
    context: PushContext & { bytes: Uint8Array; mediaType: string; tags: readonly Tag[] },
  ): Promise<PushedManifest>;
  /** Removes a tag, or a manifest with all tags that name it. @throws OciError MANIFEST_UNKNOWN;
   *  DENIED: a manifest that stays names it */
  deleteManifest(repository: Repository, reference: Reference, context: PushContext): Promise<void>;
  /** @throws OciError BLOB_UNKNOWN; DENIED: a manifest that stays names it */
  deleteBlob(repository: Repository, digest: Digest, context: PushContext): Promise<void>;
  /** All repositories after `last`, sorted by name. */
  repositories(context: PushContext & { last?: Repository }): AsyncIterable<Repository>;
}
