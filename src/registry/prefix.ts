import type { Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { createDigestHash, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { acquireShared, spoolBuffers, type SharedBuffer } from '../store/buffers.ts';
import { createBlobHash, type BlobHash } from './blob-hash.ts';
import type { Intervals } from './intervals.ts';

/** How a spool file begins: the bytes of a blob that have come without a gap, hashed as they grow. */
export interface Prefix {
  /** How many bytes the hash has been given; all of them are in the spool. */
  hashed(): number;
  /** `chunk`, a part of `buffer`, is in the spool at `position` now, and `have` says so. */
  grow(position: number, chunk: Uint8Array, buffer: SharedBuffer): void;
  /** Until what the hash has been given so far is hashed; never rejects. */
  settled(): Promise<void>;
  /** Hashes all that there is without a gap. @returns whether it is what the digest names */
  finish(): Promise<boolean>;
  /** Once nothing is written any more: a hash of the prefix, for who goes on from its end without the spool. */
  again(): Promise<{ hash: Hash; hashed: number }>;
  /** It is hashed no further. */
  drop(): void;
}

export interface PrefixOptions {
  digest: Digest;
  spool: FileHandle;
  /** What is in the spool. */
  have: Intervals;
  /** Of the whole blob in bytes, while somebody knows. */
  size(this: void): number | undefined;
  /** What came out of order needs no hashing any more. */
  unwanted(this: void): boolean;
  /** It cannot be hashed. */
  failed(this: void, error: unknown): void;
}

export function createPrefix({ digest, spool, have, size, unwanted, failed }: PrefixOptions): Prefix {
  let hash: BlobHash | undefined;
  let hashed = 0;
  let hashing = Promise.resolve();
  let catchingUp: Promise<void> | undefined;
  let again: Promise<{ hash: Hash; hashed: number }> | undefined;

  /** Hashes what comes after all that has been hashed, while the next is on its way. */
  function take(chunk: Uint8Array, buffer: SharedBuffer): void {
    hash ??= createBlobHash(digest, size());
    hashed += chunk.length;
    buffer.hold();
    hashing = hash
      .update(chunk)
      .catch(failed)
      .finally(() => buffer.release());
  }

  /** Hashes what came out of order, once the prefix has reached it. */
  async function catchUp(): Promise<void> {
    const buffer = acquireShared(spoolBuffers);
    try {
      for (let end = have.endFrom(hashed); end > hashed && !unwanted(); end = have.endFrom(hashed)) {
        take(await read(buffer.bytes, hashed, end), buffer);
        await hashing;
      }
    } catch (error) {
      failed(error);
    } finally {
      buffer.release();
    }
  }

  /** What of [position, end) fits into `buffer`: at least one byte. */
  async function read(buffer: Uint8Array, position: number, end: number): Promise<Uint8Array> {
    const { bytesRead } = await spool.read(buffer, 0, Math.min(buffer.length, end - position), position);
    if (bytesRead > 0) return buffer.subarray(0, bytesRead);
    throw new OciError('UNAVAILABLE', 'the spool file is shorter than what was written to it', { origin: 'storage' });
  }

  /** Here, not in the thread: each reader goes on from a copy. */
  async function hashAgain(): Promise<{ hash: Hash; hashed: number }> {
    const end = hashed;
    const hash = createDigestHash(digest);
    const buffer = spoolBuffers.acquire();
    try {
      for (let at = 0; at < end;) {
        const bytes = await read(buffer, at, end);
        hash.update(bytes);
        at += bytes.length;
      }
    } finally {
      spoolBuffers.release(buffer);
    }
    return { hash, hashed: end };
  }

  return {
    hashed: () => hashed,
    grow(position, chunk, buffer) {
      if (catchingUp !== undefined) return;
      if (position === hashed) take(chunk, buffer);
      if (have.endFrom(hashed) > hashed) catchingUp = catchUp().finally(() => (catchingUp = undefined));
    },
    settled: () => hashing,
    async finish() {
      while (catchingUp !== undefined) await catchingUp;
      await catchUp();
      await hashing;
      hash ??= createBlobHash(digest, 0);
      return hash.agrees();
    },
    again: () => (again ??= hashAgain()),
    drop: () => hash?.drop(),
  };
}
