import { createBody } from '../io/body.ts';
import { copyOf, fileBuffers } from '../io/buffers.ts';
import type { Body } from '../oci/registry.ts';
import { OciError } from '../oci/error.ts';
import { createDigestHash } from '../oci/digest.ts';
import type { BlobParts } from '../store/blob-parts.ts';
import type { PartUploads } from './part-uploads.ts';
import type { ReaderOptions } from './reader.ts';
import type { SourceList } from './source.ts';
import { createSpoolReader } from './spool/spool-reader.ts';
import type { DownloadState } from './state.ts';
import { freeEnd } from './withheld.ts';
import { wrapAfter, type Ring, type Window } from './window.ts';
import { readWithoutSpool } from './without-spool.ts';

/** What the readers of a passage see of it. */
export interface PassageView {
  window: Window;
  parts: BlobParts;
  uploads: Pick<PartUploads, 'bounds' | 'stored'>;
  ring: Pick<Ring, 'base' | 'received'>;
  /** The blob is complete in the storage, under its own name. */
  isJoined: boolean;
  isAbandoned: boolean;
}

export interface PassageReaderOptions extends Pick<ReaderOptions, 'rest'> {
  sources: SourceList;
  state: DownloadState;
  view: PassageView;
  /** The part that the reader wants: [from, to). */
  from: number;
  to: number;
}

/** One reader's body of a blob that passes through the spool. */
export function createPassageReader({ state, view, sources, from, to, rest }: PassageReaderOptions, signal: AbortSignal): Body {
  const { window } = view;
  const reader = createSpoolReader(state.spool, state.chunks, (position) => position % window.size);
  let position = from;
  let open = true;
  /** Bytes that are no longer in the spool. */
  let elsewhere: AsyncIterator<Uint8Array> | undefined;
  let isOver = false;
  const { copy, close: closeCopies } = createCopy();

  const free = (): number => Math.min(to, state.verified ? view.ring.received() : freeEnd(view.ring.received(), state.size));

  /** Undefined: the spool has lost the bytes meanwhile. */
  async function readSpool(limit: number): Promise<Uint8Array | undefined> {
    const chunk = await reader.read(position, Math.min(limit, wrapAfter(position, window)), to);
    return position >= view.ring.base() ? chunk : undefined;
  }

  async function next(): Promise<Uint8Array | undefined> {
    while (open && position < to) {
      signal.throwIfAborted();
      const limit = free();
      const step = await elsewhere?.next();
      if (step?.done === false) return step.value;
      elsewhere = undefined;
      if (position < limit && position < view.ring.base())
        elsewhere = readStorage({ view, state, sources }, { from: position, to: limit, copy }, signal);
      else if (position < limit) {
        const chunk = await readSpool(limit);
        if (chunk !== undefined) return chunk;
      } else if (state.failure !== undefined) throw state.failure.error;
      else if (view.isAbandoned) elsewhere = rest(position, to, signal);
      else await state.changed();
    }
    isOver = position >= to;
    return undefined;
  }

  return createBody(
    {
      async pull() {
        const chunk = await next();
        position += chunk?.length ?? 0;
        return chunk;
      },
      async close() {
        open = false;
        reader.close(isOver && elsewhere === undefined);
        closeCopies();
        state.notify();
        await elsewhere?.return?.();
      },
    },
    signal,
  );
}

/** Copies a chunk that a connection may overwrite as soon as its body has ended. The copy is valid
 *  as long as a chunk of `Blob.body`. */
type Copy = (chunk: Uint8Array) => Uint8Array;

function createCopy(): { copy: Copy; close(this: void): void } {
  const buffers: Buffer[] = [];
  let turn = 0;
  return {
    copy(chunk) {
      turn = 1 - turn;
      const buffer = (buffers[turn] ??= fileBuffers.acquire());
      if (chunk.length > buffer.length) return copyOf(chunk);
      buffer.set(chunk);
      return buffer.subarray(0, chunk.length);
    },
    close() {
      for (const buffer of buffers.splice(0)) fileBuffers.forget(buffer); // the last chunks may be on their way to the client
    },
  };
}

type Place = Pick<PassageReaderOptions, 'view' | 'state' | 'sources'>;

/** Reads bytes that are no longer in the spool from the storage: [from, to), or fewer. If the
 *  storage fails, reads them from the source again. */
async function* readStorage(
  place: Place,
  { from, to, copy }: { from: number; to: number; copy: Copy },
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const { view, state, sources } = place;
  const index = Math.floor(from / view.window.partSize);
  const end = Math.min(to, view.isJoined ? view.ring.base() : view.uploads.bounds(index).end);
  let position = from;
  try {
    for await (const chunk of await openStorage(place, { index, from, end }, signal)) {
      position += chunk.length;
      yield copy(chunk);
    }
  } catch {
    signal.throwIfAborted();
  }
  if (position >= end) return;
  const { digest, maxSize, size } = state;
  const hash = createDigestHash(digest);
  yield* readWithoutSpool({ digest, sources, maxSize, size, from: position, to: end, hash, hashed: 0 }, signal);
}

/** @throws OciError UNAVAILABLE */
async function openStorage(
  { view, state }: Place,
  { index, from, end }: { index: number; from: number; end: number },
  signal: AbortSignal,
): Promise<Body> {
  const { parts, uploads } = view;
  const part = uploads.stored(index);
  const { start } = uploads.bounds(index);
  const read = async () => (part === undefined ? undefined : parts.read(part, { start: from - start, end: end - start - 1 }, { signal }));
  const joined = () => parts.readJoined(state.digest, { start: from, end: end - 1 }, { signal });
  const content = view.isJoined ? await joined() : ((await read()) ?? (await joined()));
  if (content === undefined) throw new OciError('UNAVAILABLE', `the storage has lost a part of ${state.digest}`, { origin: 'storage' });
  return content.body;
}
