import type { FileHandle } from 'node:fs/promises';
import type { ByteRange } from '../oci/range.ts';
import type { Body } from '../oci/registry.ts';
import { createBody } from './body.ts';
import type { BufferPool } from './buffers.ts';
import { withSlices } from './slice.ts';

/** Up to this many bytes are read into a buffer of their own: manifests and configs need no buffer
 *  of the pool. */
const SMALL = 2 ** 16;

export interface FileBodyOptions {
  /** The body owns it from now on, and closes it. */
  handle: Pick<FileHandle, 'fd' | 'read' | 'close'>;
  range: Required<ByteRange>;
  /** Whether the body may be sent as a file (slice.ts). */
  sendable?: boolean;
  buffers: BufferPool;
  signal: AbortSignal;
  /** Makes the error to throw for one of the file. */
  failure: (error: unknown) => Error;
  /** Makes the error to throw when the file ends within the range, after `size` bytes. */
  tooShort: (size: number) => Error;
}

/** Reads a range of an open file, by positional reads into two pooled buffers in turn, as the chunk
 *  contract of `Blob` allows. */
export function fileBody({ handle, range, sendable = false, buffers, signal, failure, tooShort }: FileBodyOptions): Body {
  let position = range.start;
  const end = range.end + 1;
  let given: Buffer | undefined;
  let before: Buffer | undefined;
  let ended = false;
  let open = true;

  /** Reuses the buffer before the last: a reader that asks for the next chunk is done with it. */
  const nextBuffer = (): Buffer => {
    if (before !== undefined && before.length >= Math.min(buffers.size, end - position)) return before;
    if (before !== undefined) buffers.release(before);
    return end - position <= SMALL ? Buffer.allocUnsafeSlow(end - position) : buffers.acquire();
  };

  const body = createBody(
    {
      async pull() {
        ended = position >= end;
        if (ended) return undefined;
        const buffer = nextBuffer();
        before = given;
        given = buffer;
        let bytesRead: number;
        try {
          ({ bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, end - position), position));
        } catch (error) {
          throw failure(error);
        }
        if (bytesRead === 0) throw tooShort(position);
        position += bytesRead;
        return bytesRead === buffer.length ? buffer : buffer.subarray(0, bytesRead);
      },
      async close() {
        open = false;
        // At the end the last chunk may still be on its way to the client. After an abort both may,
        // and a read may still be running.
        if (before !== undefined) (ended ? buffers.release : buffers.forget)(before);
        if (given !== undefined) buffers.forget(given);
        before = undefined;
        given = undefined;
        await handle.close();
      },
    },
    signal,
  );
  if (!sendable) return body;
  return withSlices(body, (taken) => {
    position += taken;
    const length = end - position;
    return Promise.resolve(open && length > SMALL ? { file: handle, position, length } : undefined);
  });
}
