import type { Hash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { createDigestHash, type Digest } from '../../oci/digest.ts';
import type { SharedBuffer } from '../../io/buffers.ts';
import type { ByteRanges } from './byte-ranges.ts';
import { createSpoolWriter, hashFile, type SpoolWriter } from './spool-writer.ts';

/** Hashes a spool file as its prefix grows, that is, the bytes of the blob that have arrived
 *  without a gap. */
export interface PrefixHash {
  /** How many bytes have been hashed, or are about to be; all of them are in the spool. */
  hashed(): number;
  /** Writes a part of `buffer` to the spool. `size`: of the whole blob, as far as it is known.
   *  Calls may overlap, and resolve in their order.
   *  @throws the file system's errors: no further bytes are written then */
  write(bytes: Uint8Array, buffer: SharedBuffer, at: { position: number; size: number | undefined }): Promise<void>;
  /** Call it when bytes have been added to the spool. */
  grown(): void;
  /** Stops hashing bytes that arrived out of order. */
  stop(): void;
  /** Hashes the rest of the prefix. @returns whether the hash matches the digest. @throws the file
   *  system's errors */
  finish(): Promise<boolean>;
  /** Returns a hash of the prefix, for readers that continue from its end without the spool. Call
   *  it once writing has ended. */
  again(): Promise<{ hash: Hash; hashed: number }>;
  /** Resolves when the file is neither written nor hashed any more; never rejects. */
  close(): Promise<void>;
}

export interface PrefixHashOptions {
  digest: Digest;
  spool: FileHandle;
  /** The bytes that are in the spool. */
  have: ByteRanges;
}

export function createPrefixHash({ digest, spool, have }: PrefixHashOptions): PrefixHash {
  let writer: SpoolWriter | undefined;
  let hashed = 0;
  /** Beyond `hashed` while writes are under way whose bytes will be hashed from memory. */
  let claimed = 0;
  let catchingUp: Promise<void> | undefined;
  let again: Promise<{ hash: Hash; hashed: number }> | undefined;
  let stopped = false;
  let failure: { error: unknown } | undefined;

  const open = (size?: number): SpoolWriter => (writer ??= createSpoolWriter({ digest, file: spool, size }));

  /** Hashes bytes that arrived out of order, once the prefix has reached them. */
  async function catchUp(): Promise<void> {
    try {
      for (let end = have.endFrom(hashed); end > hashed && !stopped; end = have.endFrom(hashed)) {
        await open().hash(hashed, end);
        hashed = claimed = end;
      }
    } catch (error) {
      failure ??= { error };
    }
  }

  /** Runs in this thread, since each reader continues from a copy of the hash. */
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
      const next = position === claimed && catchingUp === undefined;
      if (next) claimed += bytes.length;
      try {
        await open(size).write(bytes, buffer, { position, hashed: next });
      } catch (error) {
        // Bytes after a gap must not count as hashed, and nothing more is written.
        failure ??= { error };
      }
      if (failure !== undefined) throw failure.error;
      if (next) hashed += bytes.length;
    },
    grown() {
      if (claimed > hashed || catchingUp !== undefined || failure !== undefined || have.endFrom(hashed) <= hashed) return;
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
