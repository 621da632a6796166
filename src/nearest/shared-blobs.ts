import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { absentAsUndefined } from '../io/absent.ts';
import { fileBuffers } from '../io/buffers.ts';
import { fileBody } from '../io/file-body.ts';
import { mapBody } from '../io/body.ts';
import { splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { resolveRange, type ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import type { BlobKeeper } from '../download/downloads.ts';

export interface SharedBlobsOptions {
  /** A directory that only this process uses. */
  directory: string;
  /** Bytes, including running downloads. */
  maxSize: number;
  /** How long a blob is kept after it was last read, in ms. */
  keepMs: number;
  /** Called when a blob is no longer kept. */
  gone(this: void, digest: Digest): void;
}

/** Verified blobs that this node has recently pulled, for other nodes. They are removed when the
 *  process ends, so nothing is synced to disk. */
export interface SharedBlobs extends BlobKeeper {
  has(this: void, digest: Digest): boolean;
  /** Undefined: this node does not have the blob. @throws OciError RANGE_INVALID, UNAVAILABLE */
  open(this: void, digest: Digest, range: ByteRange | undefined, signal: AbortSignal): Promise<Blob | undefined>;
  /** Bytes on disk, including reserved ones. */
  used(this: void): number;
  close(this: void): void;
}

interface Kept {
  size: number;
  usedAt: number;
  readers: number;
}

const SWEEP_MS = 10_000;
const SHORTEST_SWEEP_MS = 1000;

export function createSharedBlobs({ directory, maxSize, keepMs, gone }: SharedBlobsOptions): SharedBlobs {
  /** Least recently used first. */
  const kept = new Map<Digest, Kept>();
  let used = 0;
  let reserved = 0;
  const pathOf = (digest: Digest): string => join(directory, splitDigest(digest).hex);

  function drop(digest: Digest, { size }: Kept): void {
    kept.delete(digest);
    used -= size;
    gone(digest);
    rm(pathOf(digest), { force: true }).catch(() => undefined); // the next start removes it
  }

  function makeRoom(bytes: number): boolean {
    for (const [digest, blob] of kept) {
      if (used + reserved + bytes <= maxSize) break;
      if (blob.readers === 0) drop(digest, blob);
    }
    return used + reserved + bytes <= maxSize;
  }

  function touch(digest: Digest, blob: Kept): void {
    blob.usedAt = performance.now();
    kept.delete(digest);
    kept.set(digest, blob);
  }

  function sweep(): void {
    const oldest = performance.now() - keepMs;
    for (const [digest, blob] of kept) if (blob.usedAt < oldest && blob.readers === 0) drop(digest, blob);
  }
  const timer = setInterval(sweep, Math.max(SHORTEST_SWEEP_MS, Math.min(SWEEP_MS, keepMs)));
  timer.unref();

  return {
    used: () => used + reserved,
    parts: undefined,
    has: (digest) => kept.has(digest),
    reserve() {
      let own = 0;
      return {
        grow(total) {
          if (total <= own) return true;
          if (!makeRoom(total - own)) return false;
          reserved += total - own;
          own = total;
          return true;
        },
        release() {
          reserved -= own;
          own = 0;
        },
      };
    },

    async keep(digest, { size, spare }, { room }) {
      if (spare === undefined) throw new OciError('UNAVAILABLE', `there is no spool file of ${digest}`, { origin: 'storage' });
      await rename(spare.path, pathOf(digest));
      room?.release();
      used += size - (kept.get(digest)?.size ?? 0);
      touch(digest, { size, usedAt: 0, readers: kept.get(digest)?.readers ?? 0 });
    },

    async open(digest, range, signal) {
      const blob = kept.get(digest);
      if (blob === undefined) return undefined;
      const part = range === undefined ? undefined : resolveRange(range, blob.size);
      blob.readers++;
      touch(digest, blob);
      const left = (): void => {
        blob.readers--;
        blob.usedAt = performance.now();
      };
      const handle = await absentAsUndefined(open(pathOf(digest), 'r')).catch((error: unknown) => {
        left();
        throw fileError(digest, error);
      });
      if (handle === undefined) {
        left();
        return undefined;
      }
      const body = fileBody({
        handle,
        range: part ?? { start: 0, end: blob.size - 1 },
        sendable: true,
        buffers: fileBuffers,
        signal,
        failure: (error) => fileError(digest, error),
        tooShort: () => fileError(digest, new Error('the file is too short')),
      });
      return { digest, size: blob.size, range: part, body: mapBody(body, { onClose: left }) };
    },

    close() {
      clearInterval(timer);
    },
  };
}

function fileError(digest: Digest, cause: unknown): OciError {
  return new OciError('UNAVAILABLE', `the copy of ${digest} on this node cannot be read`, { cause, origin: 'storage' });
}
