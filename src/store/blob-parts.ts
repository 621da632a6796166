import { randomBytes } from 'node:crypto';
import { inParallel } from '../async/parallel.ts';
import type { Digest } from '../oci/digest.ts';
import type { ByteRange } from '../oci/range.ts';
import { blobKey, PARTS, parsePartKey, partKey, partsPrefix } from './keys.ts';
import type { StoreContext, StoredContent, StoreSource } from './store.ts';
import type { UploadStore } from './upload-store.ts';

/** A part of a blob: [start, end). Its bytes are as upstream has sent them: nothing has checked
 *  them yet. */
export interface BlobPart {
  key: string;
  start: number;
  end: number;
}

/** The parts of blobs that are being downloaded, in the storage: objects of their own, so that they
 *  can be read before the blob is complete, by other replicas too
 *  (docs/decisions/blob-parts.md). */
export interface BlobParts {
  /** The blobs that have parts. */
  digests(context: StoreContext): Promise<Set<Digest>>;
  /** The parts of a blob of `size` bytes (undefined: of any size) that some process has stored,
   *  none of which overlap, ascending. */
  list(digest: Digest, size: number | undefined, context: StoreContext): Promise<{ size: number; parts: BlobPart[] } | undefined>;
  write(digest: Digest, at: { size: number; start: number }, source: StoreSource, context: StoreContext): Promise<BlobPart>;
  /** `range`: within the part. Undefined: the part is gone. */
  read(part: BlobPart, range: Required<ByteRange>, context: StoreContext): Promise<StoredContent | undefined>;
  /** Makes the blob of its parts, all of them, in order. The parts stay. */
  join(digest: Digest, parts: readonly BlobPart[], context: StoreContext): Promise<void>;
  /** Reads a blob that has been joined. */
  readJoined(digest: Digest, range: Required<ByteRange>, context: StoreContext): Promise<StoredContent | undefined>;
  /** Removes all parts of a blob. */
  clear(digest: Digest, context: StoreContext): Promise<void>;
}

const REMOVALS_AT_ONCE = 8;

export function createBlobParts(store: UploadStore): BlobParts {
  return {
    async digests({ signal }) {
      const found = new Set<Digest>();
      for await (const { key } of store.list(PARTS, { signal })) {
        const digest = parsePartKey(key)?.digest;
        if (digest !== undefined) found.add(digest);
      }
      return found;
    },
    async list(digest, size, { signal }) {
      /** By the size of the blob that they are parts of: a part of another size is of no use. */
      const found = new Map<number, BlobPart[]>();
      for await (const { key, size: length } of store.list(partsPrefix(digest), { signal })) {
        const at = parsePartKey(key);
        if (at === undefined || length === 0 || at.start + length > at.size || (size ?? at.size) !== at.size) continue;
        const parts = found.get(at.size) ?? [];
        found.set(at.size, parts);
        if (at.start >= (parts.at(-1)?.end ?? 0)) parts.push({ key, start: at.start, end: at.start + length });
      }
      const [first] = [...found].sort(([, one], [, other]) => other.length - one.length);
      return first === undefined ? undefined : { size: first[0], parts: first[1] };
    },
    async write(digest, { size, start }, source, context) {
      const key = partKey(digest, { size, start, nonce: randomBytes(8).toString('hex') });
      await store.write(key, source, context);
      return { key, start, end: start + source.size };
    },
    read: ({ key }, range, context) => store.read(key, { ...context, range }),
    join: (digest, parts, context) =>
      store.compose(
        parts.map(({ key, start, end }) => ({ key, size: end - start })),
        blobKey(digest),
        context,
      ),
    readJoined: (digest, range, context) => store.read(blobKey(digest), { ...context, range }),
    async clear(digest, { signal }) {
      await inParallel(store.list(partsPrefix(digest), { signal }), REMOVALS_AT_ONCE, ({ key }) => store.remove(key, { signal }));
    },
  };
}
