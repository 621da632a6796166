import type { Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { createDigestHash, type Digest } from '../../oci/digest.ts';
import type { SharedBuffer } from '../../io/buffers.ts';
import type { Intervals } from './byte-ranges.ts';
import { createSpoolWriter, hashFile, type SpoolWriter } from './spool-writer.ts';

/** A spool file, hashed as its beginning grows: the bytes of a blob that have come without a gap. */
export interface Prefix {
  /** How many bytes have been hashed, or are about to be; all of them are in the spool. */
  hashed(): number;
  /** Puts a part of `buffer` into the spool. @throws the file system's errors */
  write(bytes: Uint8Array, buffer: SharedBuffer, position: number): Promise<void>;
  /** `have` says more than before. */
  grown(): void;
  /** Hashes all that there is without a gap. @returns whether it is what the digest names */
  finish(): Promise<boolean>;
  /** Once nothing is written any more: a hash of the prefix, for who goes on from its end without the spool. */
  again(): Promise<{ hash: Hash; hashed: number }>;
  /** Resolves when the file is neither written nor hashed any more; never rejects. */
  close(): Promise<void>;
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
  let writer: SpoolWriter | undefined;
  let hashed = 0;
  /** Something is on its way to the spool that will be hashed from memory. */
  let advancing = false;
  let catchingUp: Promise<void> | undefined;
  let again: Promise<{ hash: Hash; hashed: number }> | undefined;

  const open = (): SpoolWriter => (writer ??= createSpoolWriter({ digest, file: spool, size: size() }));

  /** Hashes what came out of order, once the prefix has reached it. */
  async function catchUp(): Promise<void> {
    try {
      for (let end = have.endFrom(hashed); end > hashed && !unwanted(); end = have.endFrom(hashed)) {
        await open().hash(hashed, end);
        hashed = end;
      }
    } catch (error) {
      failed(error);
    }
  }

  /** Here, not in a thread: each reader goes on from a copy. */
  async function hashAgain(): Promise<{ hash: Hash; hashed: number }> {
    const end = hashed;
    const hash = createDigestHash(digest);
    await hashFile(hash, spool, 0, end);
    return { hash, hashed: end };
  }

  return {
    hashed: () => hashed,
    async write(bytes, buffer, position) {
      const next = position === hashed && !advancing && catchingUp === undefined;
      advancing ||= next;
      try {
        await open().write(bytes, buffer, { position, hashed: next });
        if (next) hashed += bytes.length;
      } finally {
        if (next) advancing = false;
      }
    },
    grown() {
      if (advancing || catchingUp !== undefined || have.endFrom(hashed) <= hashed) return;
      catchingUp = catchUp().finally(() => (catchingUp = undefined));
    },
    async finish() {
      while (catchingUp !== undefined) await catchingUp;
      await catchUp();
      return open().agrees();
    },
    again: () => (again ??= hashAgain()),
    async close() {
      await writer?.close();
    },
  };
}
