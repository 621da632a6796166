import type { FileHandle } from 'node:fs/promises';
import { OciError } from '../oci/error.ts';
import { acquireShared, spoolBuffers, type SharedBuffer } from '../store/buffers.ts';
import type { Windows } from './windows.ts';

/** Gives one reader its chunks, valid as long as a `Blob`'s body says. */
export interface SpoolReader {
  /** At least one byte of [position, limit), all of it in the spool. Called once at a time. */
  read(position: number, limit: number): Promise<Uint8Array>;
  /** `whole`: nobody looks at the chunk before the last any more; else both may still be on their way out. */
  close(whole: boolean): void;
}

/** From memory where it still is there, else from the spool. */
export function createSpoolReader(spool: FileHandle, windows: Windows): SpoolReader {
  let given: SharedBuffer | undefined;
  let before: SharedBuffer | undefined;

  return {
    async read(position, limit) {
      before?.release(); // who asks for a chunk is done with the one before the last
      before = given;
      const window = windows.find(position);
      if (window !== undefined) {
        given = window.buffer;
        given.hold();
        return given.bytes.subarray(position - window.start, Math.min(limit, window.written) - window.start);
      }
      given = acquireShared(spoolBuffers);
      const { bytesRead } = await spool.read(given.bytes, 0, Math.min(given.bytes.length, limit - position), position);
      if (bytesRead === 0) throw new OciError('UNAVAILABLE', 'the spool file lost bytes', { origin: 'storage' });
      return given.bytes.subarray(0, bytesRead);
    },
    close(whole) {
      if (whole) before?.release();
      else before?.forget();
      given?.forget();
    },
  };
}
