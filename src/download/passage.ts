import type { SharedBuffer } from '../io/buffers.ts';
import type { Body } from '../oci/registry.ts';
import type { BlobPart, BlobParts } from '../store/blob-parts.ts';
import { createPartUploads, type PartUploads } from './part-uploads.ts';
import { createPassageReader, type PassageView } from './passage-reader.ts';
import type { SourceList } from './source.ts';
import { createCoalescingWriter } from './spool/coalescing-writer.ts';
import type { DownloadState, Reservation } from './state.ts';
import { createRing, reserveWindow, type Ring, type Window } from './window.ts';
import { fetchFrom } from './without-spool.ts';

/** The download of a blob that is larger than the room for it (promise 19). Its bytes pass in order
 *  through a window in the spool file: they are hashed and stored in parts, in the storage. Readers
 *  follow in the window; those that have fallen behind read the parts. The window moves on only
 *  over parts that are stored, so an upstream that is faster than the storage waits. */
export interface Passage {
  /** Resolves when nothing more is received; never rejects. A failure of the source fails the
   *  download. */
  readonly ended: Promise<void>;
  /** The storage does not take the parts: readers continue without it. */
  isAbandoned(this: void): boolean;
  /** Why the storage did not take a part; undefined: it took all so far. */
  refusal(this: void): unknown;
  /** Bytes. */
  received(this: void): number;
  /** Bytes. */
  hashed(this: void): number;
  /** Finishes the hash. @returns whether it matches the digest */
  finish(this: void): Promise<boolean>;
  /** Reads [from, to). */
  follow(this: void, from: number, to: number, signal: AbortSignal): Body;
  /** Makes the blob of its parts. Call it once the digest has been checked. @throws OciError
   *  UNAVAILABLE */
  join(this: void, signal: AbortSignal): Promise<void>;
  /** Resolves when the spool file is no longer used, except by readers; never rejects. */
  close(this: void): Promise<void>;
}

export interface PassageOptions {
  state: DownloadState;
  sources: SourceList;
  parts: BlobParts;
  /** Room for the window. */
  room: Pick<Reservation, 'grow'>;
  /** Of the blob, in bytes. */
  size: number;
  /** Continues a reader's body straight from the source. */
  rest(this: void, from: number, to: number | undefined, signal: AbortSignal): AsyncGenerator<Uint8Array>;
}

/** How long to look for parts that an earlier download has left, in ms. */
const LOOK_TIMEOUT_MS = 5000;

/** Undefined: there is not even room for a window. */
export function startPassage(options: PassageOptions): Passage | undefined {
  const window = reserveWindow(options.size, options.room);
  return window === undefined ? undefined : createPassage(options, window);
}

function createPassage(options: PassageOptions, window: Window): Passage {
  const { state, parts, size, rest, sources } = options;
  const { digest, spool } = state;
  const stop = new AbortController();
  const signal = AbortSignal.any([state.signal, stop.signal]);
  let refusal: unknown;
  const uploads = createPartUploads({
    parts,
    digest,
    size,
    partSize: window.partSize,
    file: spool,
    place: (position) => position % window.size,
    onStored: state.notify,
    onFailure(error) {
      refusal = error;
      abandon(error);
    },
  });
  const isStored = (index: number): boolean => uploads.stored(index) !== undefined;
  const ring = createRing({ state, size, window, isStored, signal });
  const view: PassageView = { window, parts, uploads, ring, isJoined: false, isAbandoned: false };

  function abandon(error: unknown): void {
    view.isAbandoned = true;
    stop.abort(error);
    state.notify();
  }

  return {
    ended: receive({ options, window, ring, uploads, abandon, signal }),
    isAbandoned: () => view.isAbandoned,
    refusal: () => refusal,
    received: ring.received,
    hashed: ring.received,
    finish: ring.finish,
    follow: (from, to, readerSignal) => createPassageReader({ state, view, sources, from, to, rest }, readerSignal),
    async join(joinSignal) {
      await parts.join(digest, await uploads.all(), { signal: joinSignal });
      view.isJoined = true;
    },
    async close() {
      stop.abort();
      await uploads.stop();
      await ring.close();
    },
  };
}

interface Receiving {
  options: PassageOptions;
  window: Window;
  ring: Ring;
  uploads: PartUploads;
  abandon(this: void, error: unknown): void;
  signal: AbortSignal;
}

/** Receives the blob into the ring, and uploads each part once it is complete. */
async function receive({ options, window, ring, uploads, abandon, signal }: Receiving): Promise<void> {
  const { state } = options;
  /** Parts that have been read from the storage from their first byte to their last, by their
   *  start. */
  const reread = new Map<number, BlobPart>();

  async function write(bytes: Uint8Array, buffer: SharedBuffer): Promise<number> {
    const from = ring.received();
    const count = await ring.write(bytes, buffer).catch((error: unknown) => {
      state.spoolError ??= error; // the disk is full or broken
      abandon(error);
      return 0;
    });
    for (let index = Math.floor(from / window.partSize); index < uploads.count && uploads.bounds(index).end <= ring.received(); index++) {
      const { start, end } = uploads.bounds(index);
      const part = reread.get(start);
      if (part?.end === end) uploads.adopt(index, part);
      else uploads.add(index);
    }
    return count;
  }

  const sink = createCoalescingWriter(0, state.chunks, { write, written: state.notify });
  try {
    for await (const bytes of bytesInOrder(options, reread, signal)) {
      await sink.take(bytes);
      if (signal.aborted) break;
    }
    await sink.end();
  } catch (error) {
    await sink.end();
    if (!signal.aborted) state.fail(error);
  }
  state.notify();
}

/** The bytes of a blob: those that an earlier download has left in the storage, and the others from
 *  the source.
 *  @throws as the source does */
async function* bytesInOrder(options: PassageOptions, reread: Map<number, BlobPart>, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const { state, sources, size } = options;
  const { digest, maxSize } = state;
  const left = await partsLeft(options, signal);
  let position = 0;
  for (const part of [...left, undefined]) {
    const end = part?.start ?? size;
    if (position < end) {
      const wanted = { start: position, end: end === size ? undefined : end };
      for await (const { chunk } of fetchFrom({ digest, sources, maxSize, size }, wanted, signal)) {
        position += chunk.length;
        yield chunk;
      }
    }
    if (part === undefined) return;
    for await (const chunk of readPart(options.parts, part, signal)) {
      position += chunk.length;
      if (position === part.end) reread.set(part.start, part);
      yield chunk;
    }
  }
}

async function partsLeft({ parts, state, size }: PassageOptions, signal: AbortSignal): Promise<BlobPart[]> {
  try {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(LOOK_TIMEOUT_MS)]);
    return (await parts.list(state.digest, size, { signal: limit }))?.parts ?? [];
  } catch {
    return []; // then all of it comes from the source
  }
}

/** Ends early when the part cannot be read. */
async function* readPart(parts: BlobParts, part: BlobPart, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    const content = await parts.read(part, { start: 0, end: part.end - part.start - 1 }, { signal });
    if (content !== undefined) yield* content.body;
  } catch {
    signal.throwIfAborted();
  }
}
