import type { FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../async/backoff.ts';
import { raceAbort } from '../async/race-abort.ts';
import { createSemaphore } from '../async/semaphore.ts';
import { sourceBuffers } from '../io/buffers.ts';
import { fileBody } from '../io/file-body.ts';
import type { Digest } from '../oci/digest.ts';
import type { BlobPart, BlobParts } from '../store/blob-parts.ts';
import { wrongLength } from '../store/failure.ts';
import type { StoreSource } from '../store/store.ts';

/** Uploads the parts of one blob from its spool file, as they become complete. */
export interface PartUploads {
  /** How many parts the blob has. */
  readonly count: number;
  /** The bytes of a part: [start, end). */
  bounds(this: void, index: number): { start: number; end: number };
  /** The bytes of a part are in the file: uploads it, unless that has begun. */
  add(this: void, index: number): void;
  /** The storage has these bytes already. */
  adopt(this: void, index: number, part: BlobPart): void;
  /** Undefined: the part is not stored yet. */
  stored(this: void, index: number): BlobPart | undefined;
  /** All parts, once they are stored. @throws what the storage threw when it refused one for
   *  good */
  all(this: void): Promise<BlobPart[]>;
  /** Starts no more uploads, and gives the running ones a moment: some servers keep what they have
   *  received of an upload that is cut. Resolves when the file is no longer read; never rejects. */
  stop(this: void): Promise<void>;
}

export interface PartUploadsOptions {
  parts: BlobParts;
  digest: Digest;
  /** Of the blob, in bytes. */
  size: number;
  partSize: number;
  file: Pick<FileHandle, 'fd' | 'read'>;
  /** Where in the file the byte at `position` of the blob lies; the bytes of a part lie
   *  together. */
  place(this: void, position: number): number;
  /** Called when a part is stored. */
  onStored?(this: void): void;
  /** Called once, when the storage refuses a part for good. */
  onFailure?(this: void, error: unknown): void;
}

/** Uploads of one blob that run at once. */
const PARALLEL = 3;
/** How long one try may take, in ms. Readers wait when the window is full, and a silent storage
 *  takes nothing. */
const TRY_TIMEOUT_MS = 30_000;
/** How long running uploads may take after the end of the download, in ms. */
const GRACE_MS = 5000;
/** The number of attempts for a part while no part has been stored: readers should not wait for a
 *  storage that is down. */
const FIRST_TRIES = 3;
/** The number of attempts after that, so that an outage of a few seconds does not end the
 *  download. */
const LATER_TRIES = 8;

export function createPartUploads(options: PartUploadsOptions): PartUploads {
  const { size, partSize, onStored, onFailure } = options;
  const count = Math.ceil(size / partSize);
  const stored = new Map<number, BlobPart>();
  const running = new Map<number, Promise<void>>();
  const slots = createSemaphore(PARALLEL);
  const stop = new AbortController();
  /** Aborted when no more uploads begin. */
  const closing = new AbortController();
  let failure: { error: unknown } | undefined;

  const bounds = (index: number) => ({ start: index * partSize, end: Math.min(size, (index + 1) * partSize) });

  function fail(error: unknown): void {
    if (stop.signal.aborted || closing.signal.aborted || failure !== undefined) return;
    failure = { error };
    closing.abort(error);
    stop.abort(error);
    onFailure?.(error);
  }

  return {
    count,
    bounds,
    add(index) {
      if (closing.signal.aborted || stored.has(index) || running.has(index)) return;
      const task = slots
        .run(() => upload(options, bounds(index), { stored, stop, closing }), closing.signal)
        .then((part) => {
          stored.set(index, part);
          onStored?.();
        })
        .catch(fail)
        .finally(() => running.delete(index));
      running.set(index, task);
    },
    adopt: (index, part) => void stored.set(index, part),
    stored: (index) => stored.get(index),
    async all() {
      await Promise.all(running.values());
      if (failure !== undefined) throw failure.error;
      closing.signal.throwIfAborted();
      return Array.from({ length: count }, (_, index) => stored.get(index)).filter((part) => part !== undefined);
    },
    async stop() {
      closing.abort();
      const ended = Promise.all(running.values());
      await raceAbort(ended, AbortSignal.timeout(GRACE_MS)).catch(() => undefined); // they are cut now
      stop.abort();
      await ended;
    },
  };
}

/** [start, end) of the blob, read from its spool file. */
function sourceOf({ file, place }: PartUploadsOptions, start: number, end: number): StoreSource {
  const size = end - start;
  const handle = { fd: file.fd, read: file.read.bind(file), close: () => Promise.resolve() };
  return {
    size,
    open({ signal, range }) {
      const first = place(start) + (range?.start ?? 0);
      const last = place(start) + (range?.end ?? size - 1);
      return Promise.resolve(
        fileBody({
          handle,
          range: { start: first, end: last },
          buffers: sourceBuffers,
          signal,
          failure: (error) => error as Error,
          tooShort: (at) => wrongLength(size, at - first),
        }),
      );
    },
  };
}

/** [start, end) of the blob. */
interface Bounds {
  start: number;
  end: number;
}

interface Uploading {
  stored: ReadonlyMap<number, BlobPart>;
  /** Aborts running uploads. */
  stop: AbortController;
  /** Aborted when no more uploads begin. */
  closing: AbortController;
}

/** Uploads a part, and retries. @throws as the storage does */
async function upload(options: PartUploadsOptions, { start, end }: Bounds, { stored, stop, closing }: Uploading): Promise<BlobPart> {
  const { parts, digest, size } = options;
  const source = sourceOf(options, start, end);
  for (let tries = 1; ; tries++) {
    try {
      const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(TRY_TIMEOUT_MS)]);
      return await parts.write(digest, { size, start }, source, { signal });
    } catch (error) {
      if (stop.signal.aborted || closing.signal.aborted || tries >= (stored.size === 0 ? FIRST_TRIES : LATER_TRIES)) throw error;
      await delay(backoff(tries, { baseMs: 250, capMs: 5000, jitter: 'half' }), undefined, { signal: closing.signal });
    }
  }
}
