import type { FileHandle } from 'node:fs/promises';
import { raceAbort } from '../async/race-abort.ts';
import type { Digest } from '../oci/digest.ts';
import type { BlobParts } from '../store/blob-parts.ts';
import { createPartUploads, type PartUploads } from './part-uploads.ts';
import type { SourceList } from './source.ts';
import type { ByteRanges } from './spool/byte-ranges.ts';

/** Stores the bytes of a slow download in parts while the rest arrives, so that another replica can
 *  continue it (promise 20). */
export interface Checkpoints {
  /** Call it after each write to the spool. */
  written(this: void, bytes: number, size: number | undefined, have: ByteRanges): void;
  /** Stores the whole blob by joining its parts, after uploading the missing ones.
   *  @returns false: there are no parts
   *  @throws OciError UNAVAILABLE */
  finish(this: void, signal: AbortSignal): Promise<boolean>;
  /** Resolves when the spool file is no longer read; never rejects. */
  stop(this: void): Promise<void>;
}

export interface CheckpointsOptions {
  parts: BlobParts;
  digest: Digest;
  file: Pick<FileHandle, 'fd' | 'read'>;
  /** Only bytes from upstream are stored: another replica stores those that it sends. */
  sources: SourceList;
}

const MiB = 2 ** 20;
/** A download that takes less time is simply repeated. */
const BEGIN_AFTER_MS = 5000;
/** Smaller blobs are downloaded again as a whole. */
export const WORTH_PARTS = 16 * MiB;
/** S3's minimum. A process that is killed loses up to one part per connection. */
const MIN_PART = 5 * MiB;
const USUAL_PARTS = 64;

export function createCheckpoints({ parts, digest, file, sources }: CheckpointsOptions): Checkpoints {
  const startedAt = performance.now();
  let uploads: PartUploads | undefined;
  let unseen = Infinity;

  return {
    written(bytes, size, have) {
      unseen += bytes;
      if (size === undefined || size < WORTH_PARTS || unseen < MiB) return;
      if (performance.now() - startedAt < BEGIN_AFTER_MS || sources.current() !== 'upstream') return;
      unseen = 0;
      const partSize = Math.max(MIN_PART, MiB * Math.ceil(size / USUAL_PARTS / MiB));
      uploads ??= createPartUploads({ parts, digest, size, partSize, file, place: (position) => position });
      for (let index = 0; index < uploads.count; index++) {
        const { start, end } = uploads.bounds(index);
        if (have.endFrom(start) >= end) uploads.add(index);
      }
    },
    async finish(signal) {
      if (uploads === undefined) return false;
      for (let index = 0; index < uploads.count; index++) uploads.add(index);
      await parts.join(digest, await raceAbort(uploads.all(), signal), { signal });
      return true;
    },
    async stop() {
      await uploads?.stop();
    },
  };
}
