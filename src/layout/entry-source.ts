import type { FileHandle } from 'node:fs/promises';
import { freeMemory } from '../io/free-memory.ts';
import { agrees, createDigestHash, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { StoreSource } from '../store/store.ts';
import type { TarEntry } from './tar-file.ts';

const PIECE_SIZE = 1024 * 1024;

export interface EntrySourceOptions {
  entry: TarEntry;
  digest: Digest;
  /** Called with the bytes that the store has taken since the last call. Bytes that are sent again
   *  are counted once. */
  advance(this: void, bytes: number): void;
}

export interface EntrySource extends StoreSource {
  /** Frees the buffers of the source. Call it when the store has written the entry. */
  free(this: void): void;
}

/** An entry of an archive. `open` and its bodies throw OciError DIGEST_INVALID for bytes that do
 *  not match the digest, before the store has received the last of them; MANIFEST_INVALID: the file
 *  became shorter. */
export function entrySource(file: FileHandle, { entry, digest, advance }: EntrySourceOptions): EntrySource {
  const { size } = entry;
  const used: Buffer[] = [];
  let taken = 0;
  let verification: Promise<void> | undefined;

  /** Alternates two buffers, as the contract of `Blob` allows. A new one for each piece would stay
   *  in memory until V8 counts some 64 MB of them and collects its garbage. */
  async function* read(start: number, end: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const buffers = [start, end].map(() => Buffer.allocUnsafeSlow(Math.min(PIECE_SIZE, end - start)));
    for (let at = start, turn = 0; at < end; turn = 1 - turn) {
      signal.throwIfAborted();
      const buffer = buffers[turn] as Buffer;
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, end - at), entry.offset + at);
      if (bytesRead === 0) throw new OciError('MANIFEST_INVALID', 'the archive became shorter while it was read');
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
    used.push(...buffers); // those of a body that did not end may still be in use by the kernel
  }

  async function* readVerified(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const hash = createDigestHash(digest);
    const check = (): void => {
      if (!agrees(hash, digest)) throw new OciError('DIGEST_INVALID', `the bytes of ${digest} in the archive have another digest`);
    };
    let left = size;
    if (left === 0) check();
    for await (const chunk of read(0, size, signal)) {
      hash.update(chunk);
      left -= chunk.length;
      if (left === 0) check();
      yield chunk;
    }
  }

  async function verify(signal: AbortSignal): Promise<void> {
    for await (const _ of readVerified(signal));
  }

  async function* counted(body: AsyncIterable<Uint8Array>, start: number): AsyncGenerator<Uint8Array> {
    let at = start;
    for await (const chunk of body) {
      yield chunk;
      at += chunk.length;
      if (at > taken) advance(at - taken);
      taken = Math.max(taken, at);
    }
  }

  return {
    size,
    async open({ range, signal }) {
      if (range === undefined) return counted(readVerified(signal), 0);
      // Parts may be written in any order, so all bytes are checked before the first part.
      await (verification ??= verify(signal));
      return counted(read(range.start, range.end + 1, signal), range.start);
    },
    free() {
      for (const buffer of used) freeMemory(buffer);
    },
  };
}
