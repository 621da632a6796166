import type { SharedBuffer } from '../io/buffers.ts';
import { createSpoolWriter } from './spool/spool-writer.ts';
import type { DownloadState, Reservation } from './state.ts';

/** The part of a blob that the spool holds at a time, if the blob is too large for it and passes
 *  through. The spool file is a ring: the byte at `position` of the blob lies at `position` modulo
 *  the window's size. */
export interface Window {
  /** Bytes, a multiple of `partSize`. */
  size: number;
  /** Bytes of a part in the storage. */
  partSize: number;
}

const MiB = 2 ** 20;
/** Readers that are less than this far behind read from the spool, the others from the storage. */
const MAX_WINDOW = 256 * MiB;
const MIN_WINDOW = 16 * MiB;
const MIN_PART = 8 * MiB;
const PARTS_IN_WINDOW = 8;
/** S3's limit for one object. */
const MAX_PARTS = 10_000;

/** Reserves the largest window that there is room for. Undefined: there is too little, or the blob
 *  is too small to need one. */
export function reserveWindow(blobSize: number, room: Pick<Reservation, 'grow'>): Window | undefined {
  for (let size = MAX_WINDOW; size >= MIN_WINDOW; size /= 2) {
    const partSize = Math.max(MIN_PART, size / PARTS_IN_WINDOW);
    if (blobSize / partSize > MAX_PARTS) return undefined;
    if (size < blobSize && room.grow(size)) return { size, partSize };
  }
  return undefined;
}

/** Where the spool file wraps next, as a position in the blob. */
export function wrapAfter(position: number, { size }: Window): number {
  return position - (position % size) + size;
}

/** Writes a blob in order to its ring, and hashes it. */
export interface Ring {
  /** The first byte of the blob that is still in the spool. Everything before it is stored. */
  base(this: void): number;
  /** How many bytes have arrived. */
  received(this: void): number;
  /** Writes the next bytes, a part of `buffer`; waits until what they overwrite is stored. Calls
   *  may overlap; they take effect in their order.
   *  @returns how many: fewer when the signal is aborted. @throws the file system's errors; then
   *  every later call fails as well */
  write(this: void, bytes: Uint8Array, buffer: SharedBuffer): Promise<number>;
  /** Finishes the hash. @returns whether it matches the digest */
  finish(this: void): Promise<boolean>;
  /** Resolves when the file is no longer used; never rejects. */
  close(this: void): Promise<void>;
}

export interface RingOptions {
  state: Pick<DownloadState, 'digest' | 'spool' | 'changed' | 'notify'>;
  /** Of the blob, in bytes. */
  size: number;
  window: Window;
  /** Whether a part is stored. `state` notifies its listeners of changes. */
  isStored(this: void, index: number): boolean;
  signal: AbortSignal;
}

export function createRing({ state, size, window, isStored, signal }: RingOptions): Ring {
  const writer = createSpoolWriter({ digest: state.digest, file: state.spool, size });
  let base = 0;
  let received = 0;
  let before: Promise<unknown> = Promise.resolve();

  /** Waits until the spool may hold the bytes before `end`. @returns false: the signal is
   *  aborted */
  async function room(end: number): Promise<boolean> {
    while (!signal.aborted && end > base + window.size) {
      if (isStored(base / window.partSize)) base += window.partSize;
      else await state.changed();
    }
    return !signal.aborted;
  }

  async function write(bytes: Uint8Array, buffer: SharedBuffer): Promise<number> {
    let done = 0;
    while (done < bytes.length) {
      const piece = bytes.subarray(done, done + wrapAfter(received, window) - received);
      if (!(await room(received + piece.length))) break;
      await writer.write(piece, buffer, { position: received % window.size, hashed: true });
      received += piece.length;
      done += piece.length;
      state.notify();
    }
    return done;
  }

  return {
    base: () => base,
    received: () => received,
    write(bytes, buffer) {
      // After a failure nothing more is written: what follows a gap would be hashed as if it were
      // the next bytes.
      const written = before.then(() => write(bytes, buffer));
      before = written;
      return written;
    },
    finish: () => writer.agrees(),
    close: () => writer.close(),
  };
}
