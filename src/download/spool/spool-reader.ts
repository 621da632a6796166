import type { FileHandle } from 'node:fs/promises';
import { OciError } from '../../oci/error.ts';
import { acquireShared, copyOf, spoolBuffers, type SharedBuffer } from '../../io/buffers.ts';
import { bytesOf, type RecentChunks } from './recent-chunks.ts';

/** Reads the spool for one reader. Chunks stay valid for as long as those of `Blob.body`. */
export interface SpoolReader {
  /** Returns at least one byte of [position, limit), which is in the spool. The reader reads
   *  nothing beyond `end`. Calls must not overlap. */
  read(position: number, limit: number, end: number): Promise<Uint8Array>;
  /** `whole`: everything up to the end was returned, and the chunk before the last is no longer in
   *  use; else the last two may still be on their way to the client. */
  close(whole: boolean): void;
}

/** Takes bytes from memory while they are among the recent chunks, else from the spool file.
 *  @param place - the position in the file of the byte at `position` of the blob */
export function createSpoolReader(spool: FileHandle, chunks: RecentChunks, place = (position: number): number => position): SpoolReader {
  let given: SharedBuffer | undefined;
  let before: SharedBuffer | undefined;
  let open = true;

  async function next(position: number, limit: number): Promise<{ chunk: Uint8Array; buffer: SharedBuffer }> {
    const recent = chunks.find(position);
    if (recent !== undefined) {
      const { buffer, written } = recent;
      buffer.hold();
      given = buffer; // released even if the reader is closed before `read` continues
      return { buffer, chunk: bytesOf(recent, position, Math.min(limit, written)) };
    }
    const buffer = acquireShared(spoolBuffers);
    given = buffer; // released even if the read fails
    const { bytesRead } = await spool.read(buffer.bytes, 0, Math.min(buffer.bytes.length, limit - position), place(position));
    if (bytesRead === 0) throw new OciError('UNAVAILABLE', 'the spool file lost bytes', { origin: 'storage' });
    return { buffer, chunk: buffer.bytes.subarray(0, bytesRead) };
  }

  return {
    async read(position, limit, end) {
      before?.release(); // a reader that asks for a chunk is done with the one before the last
      before = given;
      given = undefined;
      const { chunk, buffer } = await next(position, limit);
      if (!open) return chunk; // `close` has forgotten the buffer
      if (position + chunk.length < end) return chunk;
      // There is no signal when the reader is done with the last chunk, so it gets a copy, which is
      // garbage collected. The buffer is reused, because freeing shared memory is slow.
      const last = copyOf(chunk);
      given = undefined;
      buffer.release();
      return last;
    },
    close(whole) {
      open = false;
      if (whole) before?.release();
      else before?.forget();
      given?.forget();
    },
  };
}
