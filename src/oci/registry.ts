import type { Descriptor } from './descriptor.ts';
import type { Digest } from './digest.ts';
import type { ByteRange, RangeRequest } from './range.ts';
import type { Reference, Repository, Tag } from './reference.ts';

/** What every call carries. Its end is the caller's to decide: an aborted signal ends the call with the signal's reason. */
export interface Context {
  signal: AbortSignal;
}

export interface Manifest {
  descriptor: Descriptor;
  /** At most MAX_MANIFEST_SIZE, verbatim as upstream sent them: their digest is the descriptor's. */
  bytes: Uint8Array;
  /** Served although upstream could not confirm it within its time. */
  stale: boolean;
}

/** Bytes, in chunks. */
export type Body = AsyncIterable<Uint8Array>;

export interface Blob {
  digest: Digest;
  /** Of the whole blob, in bytes; undefined while an upstream that sends no length is still sending. */
  size: number | undefined;
  /** What of it `body` holds; undefined: all of it. */
  range: Required<ByteRange> | undefined;
  /** Ends normally only when every byte has been given and, at the blob's end, has been verified by whoever promises that.
   *  A chunk stays valid until the second `next()` after the one that gave it: a producer may alternate two buffers, and a
   *  consumer may ask for one chunk while it still writes the one before. Who keeps chunks for longer copies them. */
  body: Body;
}

export interface Referrers {
  /** An image index (application/vnd.oci.image.index.v1+json), as bytes. */
  index: Uint8Array;
  /** `index` holds only what `artifactType` asked for. */
  filtersApplied: boolean;
}

/** A registry to read from. Every method throws OciError; besides those named, any may throw
 *  NAME_UNKNOWN (no such repository), UNAUTHORIZED and DENIED (upstream refuses), TOOMANYREQUESTS, and
 *  UNAVAILABLE (nobody who could answer did). */
export interface Registry {
  /** HEAD of a manifest. @throws MANIFEST_UNKNOWN */
  resolve(repository: Repository, reference: Reference, context: Context): Promise<Descriptor>;
  /** GET of a manifest. @throws MANIFEST_UNKNOWN, MANIFEST_INVALID (not what its digest says, too large, schema 1) */
  manifest(repository: Repository, reference: Reference, context: Context): Promise<Manifest>;
  /** HEAD of a blob. @throws BLOB_UNKNOWN */
  stat(repository: Repository, digest: Digest, context: Context): Promise<Descriptor>;
  /** GET of a blob or of a range of it. A registry that cannot do ranges answers with the whole (`range` undefined).
   *  `body` must be iterated to its end, or its iterator returned, or the signal aborted: it may hold a connection.
   *  @throws BLOB_UNKNOWN, RANGE_INVALID */
  blob(repository: Repository, digest: Digest, context: Context & { range?: RangeRequest }): Promise<Blob>;
  /** All tags after `last`, in the order of upstream, in pages as they arrive: a list may have a million tags, and one step of
   *  an async iterator costs more than a tag. A page may be empty. */
  tags(repository: Repository, context: Context & { last?: Tag }): AsyncIterable<readonly Tag[]>;
  /** What refers to a digest; an empty index where nothing does. Falls back to the referrers tag schema. */
  referrers(repository: Repository, digest: Digest, context: Context & { artifactType?: string }): Promise<Referrers>;
}
