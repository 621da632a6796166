import { open, type FileHandle } from 'node:fs/promises';
import type { ByteRange, RangeRequest } from '../oci/range.ts';
import type { Body } from '../oci/registry.ts';
import { sourceBuffers } from '../io/buffers.ts';
import { wrongLength } from './failure.ts';
import { fileBody } from '../io/file-body.ts';

export interface StoreContext {
  signal: AbortSignal;
  /** How long a remote store may take to begin its response to `stat` and `read`, in ms; absent:
   *  the store decides. */
  within?: number;
}
export interface WriteContext extends StoreContext {
  /** A power failure may lose or truncate the object: the store need not wait for its disk. */
  volatile?: boolean;
}
export interface StoredObject {
  /** Bytes, of the whole object. */
  size: number;
  modified: Date;
}
export interface StoredContent extends StoredObject {
  /** Which bytes of the object `body` holds; undefined: all of them, because no range was
   *  requested. */
  range: Required<ByteRange> | undefined;
  /** The object, or the requested range of it. Chunks are valid as long as a `Blob`'s body says
   *  (oci/registry.ts); like it, the body holds a file or a connection until it ends, is returned,
   *  or the signal is aborted. */
  body: Body;
}
export interface StoreSource {
  /** Bytes, exactly. */
  size: number;
  /** Opens the whole source, or `range`, from its beginning each time, since failed writes are
   *  retried. Chunks are valid as long as a `Blob`'s body says (oci/registry.ts); like it, the
   *  opened body holds a file until it ends, is returned, or the signal is aborted, and fails
   *  then. */
  open(context: StoreContext & { range?: Required<ByteRange> }): Promise<AsyncIterable<Uint8Array>>;
  /** The same bytes, if they are in memory anyway. */
  bytes?: Uint8Array;
  /** An open file with exactly these bytes that the caller no longer needs: a file store moves or
   *  removes it. */
  spare?: { path: string; handle: FileHandle };
}

/** A place for bytes under keys of `/`-joined segments (store/keys.ts). An absent object is
 *  undefined, never an error. Every method throws OciError UNAVAILABLE (origin storage) if the
 *  place cannot be reached, is full or refuses; its `retryAfter` is set if waiting may help (an
 *  outage), and absent if an operator has to act (a full disk, a refusal). NAME_INVALID: not a
 *  valid key. Errors of a source are passed on; a source whose length differs from the announced
 *  one is SIZE_INVALID. */
export interface Store {
  stat(key: string, context: StoreContext): Promise<StoredObject | undefined>;
  /** Opens an object, or the part of it that `range` selects by the rules of RFC 9110 §14.1.2: an
   *  end behind the object's last byte means that byte. The caller need not know the size: the
   *  store answers a range with one request.
   *  @throws OciError RANGE_INVALID, with the object's size: the range selects no byte */
  read(key: string, context: StoreContext & { range?: RangeRequest }): Promise<StoredContent | undefined>;
  /** Writes or replaces an object atomically: a reader sees the old object or the new one. */
  write(key: string, source: StoreSource, context: WriteContext): Promise<void>;
  /** Removing an absent object is no error. */
  remove(key: string, context: StoreContext): Promise<void>;
  /** Every object whose key starts with `prefix`, in ascending order of key (UTF-8 bytes), those up
   *  to and including `after` left out. */
  list(prefix: string, context: StoreContext & { after?: string }): AsyncIterable<StoredObject & { key: string }>;
  /** Closes the files and connections of the store. */
  close(): Promise<void>;
}

export function bytesSource(bytes: Uint8Array): StoreSource {
  return {
    size: bytes.length,
    bytes,
    open: ({ range }) => Promise.resolve(oneChunk(range === undefined ? bytes : bytes.subarray(range.start, range.end + 1))),
  };
}

async function* oneChunk(chunk: Uint8Array): AsyncGenerator<Uint8Array> {
  yield chunk;
}

/** `file` holds exactly `size` bytes and will never change; if its size differs, the error is
 *  SIZE_INVALID. */
export function fileSource(file: string, size: number): StoreSource {
  const tooShort = (actual: number) => wrongLength(size, actual);
  return {
    size,
    async open({ signal, range = { start: 0, end: size - 1 } }) {
      const handle = await open(file, 'r');
      try {
        const found = await handle.stat();
        if (found.size !== size) throw wrongLength(size, found.size);
      } catch (error) {
        await handle.close();
        throw error;
      }
      return fileBody({ handle, range, buffers: sourceBuffers, signal, failure: (error) => error as Error, tooShort });
    },
  };
}
