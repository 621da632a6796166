import type { Socket } from 'node:net';
import type { BodySource } from '../../io/body.ts';
import { createBufferPool } from '../../io/buffers.ts';

/** Bytes read at once: few enough to stay in a CPU's cache. Node's own 64 KiB cost a third more
 *  time. */
const PIECE = 256 * 1024;
/** One buffer that the kernel writes into, or that waits, and two that the reader may still look
 *  at. */
const RING = 3;
/** Enough for sixteen bodies at once; further ones read smaller pieces. */
const pieces = createBufferPool(16 * RING, PIECE);

/** A body of known length, read from a socket into a few buffers that are reused: a chunk stays
 *  valid until the second pull after the one that returned it. The socket is closed with the
 *  body. */
export interface RawBody extends BodySource {
  /** The buffer that the socket reads into next. */
  buffer(): Uint8Array;
  /** Takes bytes that the socket has read. @returns false: no more for now */
  take(bytes: Uint8Array): boolean;
}

export function createRawBody(socket: Socket, length: number): RawBody {
  const ring: Buffer[] = [];
  const arrived: Uint8Array[] = [];
  let turn = 0;
  let missing = length;
  let given = 0;
  let wake: (() => void) | undefined;
  const notify = (): void => wake?.();
  socket.once('close', notify);

  return {
    async pull() {
      while (arrived.length === 0 && missing > 0) {
        if (socket.destroyed) throw socket.errored ?? new Error(`the line was cut ${missing} bytes before the end`);
        socket.resume();
        await new Promise<void>((resolve) => (wake = resolve));
      }
      const chunk = arrived.shift();
      if (missing > 0 && arrived.length === 0) socket.resume(); // read on while the reader is busy with this chunk
      given += chunk?.length ?? 0;
      return chunk;
    },
    close(aborted) {
      socket.destroy();
      // A reader that left early, or was aborted, may still look at some of the buffers.
      const done = given === length && !aborted;
      for (const piece of ring.splice(0)) (done ? pieces.release : pieces.forget)(piece);
      return Promise.resolve();
    },
    buffer() {
      turn = (turn + 1) % RING;
      return (ring[turn] ??= pieces.acquire());
    },
    take(bytes) {
      const own = bytes.length > missing ? bytes.subarray(0, missing) : bytes;
      missing -= own.length;
      if (own.length > 0) arrived.push(own);
      notify();
      return false;
    },
  };
}
