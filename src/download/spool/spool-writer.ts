import type { Hash } from 'node:crypto';
import { writeSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { agrees, createDigestHash, splitDigest, type Digest } from '../../oci/digest.ts';
import { OciError } from '../../oci/error.ts';
import { spoolBuffers, type SharedBuffer } from '../../io/buffers.ts';
import { fileWorker, type FileWorker } from '../../io/file-workers.ts';

/** Blobs of at least this many bytes are written and hashed by a worker thread. */
const LARGE = 2 ** 20;
/** A reader waits for the first bytes of a blob. Up to this many of them are written by the event
 *  loop, in about 20 µs: a worker needs some milliseconds until it has a processor, if few are
 *  free. */
const FIRST_BYTES = 64 * 1024;
/** Bytes that a worker reads back at a time: its other files wait meanwhile. */
const READ_BACK = 4 * 2 ** 20;

/** Writes a blob to its spool file, in pieces of any order, and hashes it in the order of its
 *  bytes. */
export interface SpoolWriter {
  /** Writes a part of `buffer`, and holds the buffer for as long as it is needed. `hashed`: these
   *  are the next bytes to hash. Resolves when they are written. Calls may overlap: they take
   *  effect, and resolve, in their order.
   *  @throws the file system's errors: nothing has been hashed then */
  write(bytes: Uint8Array, buffer: SharedBuffer, at: { position: number; hashed: boolean }): Promise<void>;
  /** Hashes [start, end), which has been written. @throws OciError UNAVAILABLE, and the file
   *  system's errors */
  hash(start: number, end: number): Promise<void>;
  /** Finishes the hash. @returns whether it matches the digest */
  agrees(): Promise<boolean>;
  /** Resolves when the file is no longer used; never rejects. */
  close(): Promise<void>;
}

export interface SpoolWriterOptions {
  digest: Digest;
  file: FileHandle;
  /** The size of the blob in bytes; undefined while it is unknown. */
  size: number | undefined;
}

export function createSpoolWriter(options: SpoolWriterOptions): SpoolWriter {
  const worker = (options.size ?? Infinity) < LARGE ? undefined : fileWorker();
  return worker === undefined ? createOwnWriter(options) : createWorkerWriter(options, worker);
}

function createOwnWriter({ digest, file }: SpoolWriterOptions): SpoolWriter {
  const hash = createDigestHash(digest);
  let last = Promise.resolve();

  async function write(bytes: Uint8Array, position: number, hashed: boolean): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
    }
    if (hashed) hash.update(bytes);
  }

  return {
    write(bytes, _, { position, hashed }) {
      last = last.then(() => write(bytes, position, hashed));
      return last;
    },
    hash: (start, end) => hashFile(hash, file, start, end),
    agrees: () => Promise.resolve(agrees(hash, digest)),
    close: () => Promise.resolve(),
  };
}

/** Updates `hash` with [start, end) of a file. @throws OciError UNAVAILABLE, and the file system's
 *  errors */
export async function hashFile(hash: Hash, file: FileHandle, start: number, end: number): Promise<void> {
  const buffer = spoolBuffers.acquire();
  try {
    for (let at = start; at < end;) {
      const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, end - at), at);
      if (bytesRead === 0)
        throw new OciError('UNAVAILABLE', 'the spool file is shorter than the bytes written to it', { origin: 'storage' });
      hash.update(buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
  } finally {
    spoolBuffers.release(buffer);
  }
}

function createWorkerWriter({ digest, file }: SpoolWriterOptions, worker: FileWorker): SpoolWriter {
  const { algorithm, hex } = splitDigest(digest);
  const { fd: descriptor } = file;
  const { ask, close } = worker.open(algorithm);
  /** Buffers that the worker has written and may still be hashing, until it answers the next
   *  request. */
  let hashing: SharedBuffer[] = [];
  /** The worker hashes the first bytes. */
  let first: Promise<unknown> | undefined;

  async function andRelease<T>(answer: Promise<T>, buffers: SharedBuffer[]): Promise<T> {
    try {
      return await answer;
    } finally {
      for (const buffer of buffers) buffer.release();
    }
  }

  function writeFirst(bytes: Uint8Array, position: number): void {
    for (let done = 0; done < bytes.length;) done += writeSync(descriptor, bytes, done, bytes.length - done, position + done);
    first = ask({ kind: 'hash', descriptor, start: position, end: position + bytes.length });
    first.catch(() => undefined); // `agrees` throws it
  }

  return {
    async write(bytes, buffer, { position, hashed }) {
      if (first === undefined && hashed && bytes.length <= FIRST_BYTES) return writeFirst(bytes, position);
      first ??= Promise.resolve();
      const done = hashing;
      hashing = hashed ? [buffer] : [];
      if (!hashed) done.push(buffer);
      buffer.hold();
      await andRelease(ask({ kind: 'write', descriptor, bytes, position, hashed }), done);
    },
    async hash(start, end) {
      for (let at = start; at < end; at += READ_BACK)
        await ask({ kind: 'hash', descriptor, start: at, end: Math.min(end, at + READ_BACK) });
    },
    async agrees() {
      await first;
      return (await andRelease(ask({ kind: 'digest' }), hashing.splice(0))).hex === hex;
    },
    close: () => andRelease(close(), hashing.splice(0)),
  };
}
