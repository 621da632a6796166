import type { Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { createDigestHash, type Digest } from '../../oci/digest.ts';
import type { SharedBuffer } from '../../io/buffers.ts';
import type { ByteRanges } from './byte-ranges.ts';
import { createSpoolWriter, hashFile, type SpoolWriter } from './spool-writer.ts';

/** A spool file that is hashed as its prefix grows: the bytes of a blob that have arrived without a gap. */
export interface PrefixHash {
  /** How many bytes have been hashed, or are about to be; all of them are in the spool. */
  hashed(): number;
  /** Writes a part of `buffer` to the spool. `size`: of the whole blob, as far as it is known.
   *  @throws the file system's errors */
  write(bytes: Uint8Array, buffer: SharedBuffer, at: { position: number; size: number | undefined }): Promise<void>;
  /** There is more in the spool than before. */
  grown(): void;
  /** What arrived out of order need not be hashed any longer. */
  stop(): void;
  /** Hashes all that there is without a gap. @returns whether it is what the digest names. @throws the file system's errors */
  finish(): Promise<boolean>;
  /** Once nothing is written any more: a hash of the prefix, for readers that go on from its end without the spool. */
  again(): Promise<{ hash: Hash; hashed: number }>;
  /** Resolves when the file is neither written nor hashed any more; never rejects. */
  close(): Promise<void>;
}

export interface PrefixHashOptions {
  digest: Digest;
  spool: FileHandle;
  /** What is in the spool. */
  have: ByteRanges;
}

export function createPrefixHash({ digest, spool, have }: PrefixHashOptions): PrefixHash {
  let writer: SpoolWriter | undefined;
  let hashed = 0;
  /** A write is under way whose bytes will be hashed from memory. */
  let advancing = false;
  let catchingUp: Promise<void> | undefined;
  let again: Promise<{ hash: Hash; hashed: number }> | undefined;
  let stopped = false;
  let failure: { error: unknown } | undefined;

  const open = (size?: number): SpoolWriter => (writer ??= createSpoolWriter({ digest, file: spool, size }));

  /** Hashes what arrived out of order, once the prefix has reached it. */
  async function catchUp(): Promise<void> {
    try {
      for (let end = have.endFrom(hashed); end > hashed && !stopped; end = have.endFrom(hashed)) {
        await open().hash(hashed, end);
        hashed = end;
      }
    } catch (error) {
      failure ??= { error };
    }
  }

  /** In this thread, since each reader goes on from a copy of the hash. */
  async function hashAgain(): Promise<{ hash: Hash; hashed: number }> {
    const end = hashed;
    const hash = createDigestHash(digest);
    await hashFile(hash, spool, 0, end);
    return { hash, hashed: end };
  }

  return {
    hashed: () => hashed,
    async write(bytes, buffer, { position, size }) {
      if (failure !== undefined) throw failure.error;
      const next = position === hashed && !advancing && catchingUp === undefined;
      advancing ||= next;
      try {
        await open(size).write(bytes, buffer, { position, hashed: next });
        if (next) hashed += bytes.length;
      } finally {
        if (next) advancing = false;
      }
    },
    grown() {
      if (advancing || catchingUp !== undefined || failure !== undefined || have.endFrom(hashed) <= hashed) return;
      catchingUp = catchUp().finally(() => (catchingUp = undefined));
    },
    stop() {
      stopped = true;
    },
    async finish() {
      while (catchingUp !== undefined) await catchingUp;
      await catchUp();
      if (failure !== undefined) throw failure.error;
      return open().agrees();
    },
    again: () => (again ??= hashAgain()),
    async close() {
      await writer?.close();
    },
  };
}
