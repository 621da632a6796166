import type { FileHandle } from 'node:fs/promises';
import type { Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import type { SharedBuffer } from '../io/buffers.ts';
import { createByteRanges, type ByteRanges } from './spool/byte-ranges.ts';
import { createPrefixHash, type PrefixHash } from './spool/prefix-hash.ts';
import { createRecentChunks, type RecentChunks } from './spool/recent-chunks.ts';
import { freeEnd, WITHHELD_BYTES } from './withheld.ts';
import type { SpoolContent, SpoolProgress } from './spool/progress.ts';

/** Room on disk for one download. */
export interface Reservation {
  /** Asks for `total` bytes; false: there is not that much room. */
  grow(this: void, total: number): boolean;
  release(this: void): void;
}

export interface DownloadStateOptions {
  digest: Digest;
  /** Open for reading and writing. */
  spool: FileHandle;
  /** The ranges that are already in the spool; by default none. */
  content?: SpoolContent | undefined;
  progress?: Pick<SpoolProgress, 'written' | 'remove'>;
  /** Bytes; a larger blob is refused. */
  maxSize: number;
  /** Room for the spool file; without it, readers continue without the spool. */
  room: Reservation;
}

/** The state that the connections and the readers of one download share. */
export interface DownloadState {
  readonly digest: Digest;
  readonly spool: FileHandle;
  readonly maxSize: number;
  /** The bytes that are in the spool. */
  readonly have: ByteRanges;
  readonly chunks: RecentChunks;
  readonly prefix: PrefixHash;
  /** Aborted with the failure of the download. */
  readonly signal: AbortSignal;
  /** The size of the whole blob in bytes; undefined while it is unknown. */
  readonly size: number | undefined;
  /** Bytes that this download has written to the spool. */
  readonly received: number;
  /** The whole blob is in the spool, and its digest is right. */
  verified: boolean;
  /** The spool accepts no more bytes: the disk has no room, or writing failed. */
  readonly spoolFull: boolean;
  /** It has no room for a blob of this size. */
  readonly isTooLarge: boolean;
  readonly failure: { error: unknown } | undefined;
  /** @throws OciError UNAVAILABLE (another size than before); SIZE_INVALID (more than maxSize) */
  learnSize(this: void, total: number): void;
  /** Asks for room for the first `total` bytes of a blob of unknown size. */
  growTo(this: void, total: number): void;
  /** Writes a part of `buffer` to the spool. @returns false: the spool is full */
  write(bytes: Uint8Array, buffer: SharedBuffer, position: number): Promise<boolean>;
  fail(this: void, error: unknown): void;
  /** How far the spool may be read from `position` now. */
  readableEnd(this: void, position: number): number;
  /** Wakes all waiters of `changed`. */
  notify(this: void): void;
  /** Resolves at the next `notify`. */
  changed(this: void): Promise<void>;
  /** The first error of the spool file. */
  spoolError: unknown;
}

export function createDownloadState(options: DownloadStateOptions): DownloadState {
  const { digest, spool, maxSize, content } = options;
  const have = createByteRanges();
  const stop = new AbortController();
  let wake = Promise.withResolvers<void>();
  const state: Changing = {
    digest,
    spool,
    maxSize,
    have,
    chunks: createRecentChunks(),
    prefix: createPrefixHash({ digest, spool, have }),
    signal: stop.signal,
    size: undefined,
    received: 0,
    verified: false,
    spoolFull: false,
    isTooLarge: false,
    failure: undefined,
    spoolError: undefined,
    learnSize: (total) => learnSize(state, options, total),
    growTo(total) {
      if (total > maxSize) throw tooLarge(digest, total, maxSize);
      if (state.size === undefined && !options.room.grow(total)) leaveSpool(state);
    },
    write: (bytes, buffer, position) => write(state, options.progress, { bytes, buffer, position }),
    fail(error) {
      state.failure ??= { error };
      stop.abort(error);
      state.notify();
    },
    readableEnd(position) {
      const end = have.endFrom(position);
      return state.verified ? end : freeEnd(end, state.size);
    },
    notify() {
      wake.resolve();
      wake = Promise.withResolvers<void>();
    },
    changed: () => wake.promise,
  };
  if (content !== undefined) continueWith(state, options, content);
  return state;
}

type Changing = { -readonly [Field in keyof DownloadState]: DownloadState[Field] };

function learnSize(state: Changing, { room }: DownloadStateOptions, total: number): void {
  const { digest, maxSize } = state;
  if (state.size === total) return;
  if (state.size !== undefined) {
    throw new OciError('UNAVAILABLE', `upstream reported two different sizes for ${digest}`, { origin: 'upstream' });
  }
  if (total > maxSize) throw tooLarge(digest, total, maxSize);
  state.size = total;
  if (room.grow(total)) return;
  state.isTooLarge = true;
  leaveSpool(state);
}

/** Makes readers continue without the spool. */
function leaveSpool(state: Changing): void {
  state.spoolFull = true;
  state.prefix.stop();
  state.notify();
}

async function write(
  state: Changing,
  progress: DownloadStateOptions['progress'],
  { bytes, buffer, position }: { bytes: Uint8Array; buffer: SharedBuffer; position: number },
): Promise<boolean> {
  try {
    await state.prefix.write(bytes, buffer, { position, size: state.size });
  } catch (error) {
    // The disk is full or broken, but upstream is not: no reader has to fail.
    state.spoolError ??= error;
    leaveSpool(state);
    return false;
  }
  state.received += bytes.length;
  state.have.add(position, position + bytes.length);
  progress?.written(bytes.length, state.size, state.have);
  state.prefix.grown();
  return true;
}

/** Continues an earlier download. The end of the blob is downloaded again in any case, because only
 *  the response of a source proves that the blob may be served. */
function continueWith(state: Changing, { room }: DownloadStateOptions, { size, ranges }: SpoolContent): void {
  if (!room.grow(size)) return;
  state.learnSize(size);
  for (const [start, end] of ranges) state.have.add(start, Math.min(end, size - WITHHELD_BYTES));
  state.prefix.grown();
}

function tooLarge(digest: Digest, size: number, maxSize: number): OciError {
  return new OciError('SIZE_INVALID', `${digest} has at least ${size} bytes, more than the ${maxSize} that are allowed`, {
    origin: 'upstream',
  });
}
