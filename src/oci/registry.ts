import type { Descriptor } from './descriptor.ts';
import type { Digest } from './digest.ts';
import type { ByteRange, RangeRequest } from './range.ts';
import type { Reference, Repository, Tag } from './reference.ts';

/** The context of every call. Aborting the signal ends the call with the signal's reason. */
export interface Context {
  signal: AbortSignal;
  /** Called before a large manifest is read into memory, with its bytes; the reading waits for it.
   *  The caller counts the bytes from then on. By default the reader counts them until it
   *  returns. */
  reserve?: (bytes: number, signal: AbortSignal) => Promise<void>;
  /** Called by a cache with how it has answered, for the access log. */
  answered?: (how: 'hit' | 'miss' | 'stale') => void;
}

export interface Manifest {
  descriptor: Descriptor;
  /** At most MAX_MANIFEST_SIZE bytes, exactly as upstream sent them: their digest is the
   *  descriptor's. */
  bytes: Uint8Array;
  /** The upstream could not confirm the tag in time: this is the cached manifest. */
  stale: boolean;
  /** Opens the stored copy of a large manifest, for slow clients: the bytes need not stay in
   *  memory. Undefined: there is none. */
  open?: ((context: Context) => Promise<Blob | undefined>) | undefined;
}

/** Bytes, in chunks. */
export type Body = AsyncIterable<Uint8Array>;

export interface Blob {
  digest: Digest;
  /** The size of the whole blob, in bytes; undefined while it is unknown, because the upstream has
   *  sent no length. */
  size: number | undefined;
  /** Which bytes of the blob `body` holds; undefined: all of them. */
  range: Required<ByteRange> | undefined;
  /** Ends normally only after every byte has been returned and, where the maker of the registry
   *  promises it, the digest of the whole blob has been checked. A chunk stays valid until the
   *  second `next()` after the one that returned it: a producer may alternate two buffers, and a
   *  consumer may ask for one chunk while it still writes the one before. Copy chunks to keep them
   *  for longer. */
  body: Body;
}

export interface Referrers {
  /** An image index (application/vnd.oci.image.index.v1+json), as bytes. */
  index: Uint8Array;
  /** `index` holds only referrers of the requested `artifactType`. */
  filtersApplied: boolean;
}

/** A registry to read from. Every method throws OciError; besides those named, any may throw
 *  NAME_UNKNOWN (no such repository), UNAUTHORIZED and DENIED (upstream refuses), TOOMANYREQUESTS,
 *  and UNAVAILABLE (the source could not answer). */
export interface Registry {
  /** HEAD of a manifest. @throws MANIFEST_UNKNOWN */
  resolve(repository: Repository, reference: Reference, context: Context): Promise<Descriptor>;
  /** GET of a manifest. @throws MANIFEST_UNKNOWN, MANIFEST_INVALID (another digest than requested,
   *  too large, schema 1) */
  manifest(repository: Repository, reference: Reference, context: Context): Promise<Manifest>;
  /** HEAD of a blob. @throws BLOB_UNKNOWN */
  stat(repository: Repository, digest: Digest, context: Context): Promise<Descriptor>;
  /** GET of a blob, or of a range of it. A registry that cannot do ranges answers with the whole
   *  blob (`range` undefined). Iterate `body` to its end, return its iterator, or abort the signal:
   *  it may hold a connection or a file.
   *  @throws BLOB_UNKNOWN, RANGE_INVALID */
  blob(repository: Repository, digest: Digest, context: Context & { range?: RangeRequest }): Promise<Blob>;
  /** All tags after `last`, in the order of upstream, in pages as they arrive: a list may have a
   *  million tags, and one step of an async iterator costs more than a tag. A page may be empty. */
  tags(repository: Repository, context: Context & { last?: Tag }): AsyncIterable<readonly Tag[]>;
  /** The manifests that refer to a digest; an empty index where there are none. Falls back to the
   *  referrers tag schema. */
  referrers(repository: Repository, digest: Digest, context: Context & { artifactType?: string }): Promise<Referrers>;
}
