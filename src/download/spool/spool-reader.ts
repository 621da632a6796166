import type { FileHandle } from 'node:fs/promises';
import { OciError } from '../../oci/error.ts';
import { acquireShared, spoolBuffers, type SharedBuffer } from '../../io/buffers.ts';
import type { Windows } from './recent-chunks.ts';

/** Gives one reader its chunks, valid as long as a `Blob`'s body says. */
export interface SpoolReader {
  /** At least one byte of [position, limit), all of it in the spool. Nothing is asked for after `end`. Called once at a time. */
  read(position: number, limit: number, end: number): Promise<Uint8Array>;
  /** `whole`: all up to the end was given, and nobody looks at the chunk before the last any more; else two may still be on their way out. */
  close(whole: boolean): void;
}

/** From memory where it still is there, else from the spool. */
export function createSpoolReader(spool: FileHandle, windows: Windows): SpoolReader {
  let given: SharedBuffer | undefined;
  let before: SharedBuffer | undefined;
  let open = true;

  async function next(position: number, limit: number): Promise<{ chunk: Uint8Array; buffer: SharedBuffer }> {
    const window = windows.find(position);
    if (window !== undefined) {
      const { buffer, start, written } = window;
      buffer.hold();
      given = buffer; // released even if the reader is closed before `read` goes on
      return { buffer, chunk: buffer.bytes.subarray(position - start, Math.min(limit, written) - start) };
    }
    const buffer = acquireShared(spoolBuffers);
    given = buffer; // released even if the read fails
    const { bytesRead } = await spool.read(buffer.bytes, 0, Math.min(buffer.bytes.length, limit - position), position);
    if (bytesRead === 0) throw new OciError('UNAVAILABLE', 'the spool file lost bytes', { origin: 'storage' });
    return { buffer, chunk: buffer.bytes.subarray(0, bytesRead) };
  }

  return {
    async read(position, limit, end) {
      before?.release(); // who asks for a chunk is done with the one before the last
      before = given;
      given = undefined;
      const { chunk, buffer } = await next(position, limit);
      if (!open) return chunk; // `close` has forgotten the buffer
      if (position + chunk.length < end) return chunk;
      // Nobody will say when the last one is done with. As a copy it goes by itself, and its buffer, of shared memory, which is slow to go, is used again.
      const last = Uint8Array.from(chunk);
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
