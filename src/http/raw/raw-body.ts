import type { Socket } from 'node:net';
import type { BodySource } from '../../io/body.ts';
import { acquireShared, spoolBuffers, type SharedBuffer } from '../../io/buffers.ts';

/** The minimum buffer for a read of the socket, in bytes: one TLS record, which Node would
 *  otherwise deliver in two parts. */
const LEAST_ROOM = 16 * 1024;
/** How long bytes wait for more, in ms. A connection of 1 Gbit/s fills a piece in that time. */
const GATHER_MS = 5;

/** A body of known length, read from a socket into shared buffers: a chunk stays valid until the
 *  second pull after the one that returned it, and longer if its buffer is held. */
export interface RawBody extends BodySource {
  /** The buffer for the bytes that the socket reads next. */
  room(this: void): Uint8Array;
  /** The socket has read `size` bytes into that buffer. @returns false: read no more for now */
  filled(this: void, size: number): boolean;
  /** Copies bytes that the socket has read into another buffer. @returns as `filled` */
  take(this: void, bytes: Uint8Array): boolean;
}

export interface RawBodyOptions {
  socket: Socket;
  /** In bytes. */
  length: number;
  /** Whether the last byte has arrived, and nothing after it. */
  onArrived(this: void): void;
}

/** The bytes of a piece that wait for the reader: [start, end). */
interface Piece {
  buffer: SharedBuffer;
  start: number;
  end: number;
}

export function createRawBody({ socket, length, onArrived }: RawBodyOptions): RawBody {
  /** Pieces with bytes that the reader has not fetched; the last one is being filled. */
  const waiting: Piece[] = [];
  /** Pieces that the reader has fetched, and the pull after which it no longer uses them. */
  const fetched: { buffer: SharedBuffer; freeFrom: number }[] = [];
  let pulls = 0;
  let missing = length;
  let unread = 0;
  let wake: (() => void) | undefined;
  /** The reader may fetch the bytes that have arrived. It gets the first ones at once. */
  let due = true;
  let gathering: NodeJS.Timeout | undefined;
  socket.once('close', deliver);

  function isFull({ buffer, end }: Piece): boolean {
    return buffer.bytes.length - end < LEAST_ROOM;
  }

  /** A whole piece waits for the reader, so the socket is not read. Pieces are small when many
   *  bodies are read at once. */
  function isCrowded(): boolean {
    const [piece] = waiting;
    return piece !== undefined && (waiting.length > 1 || isFull(piece));
  }

  /** The piece for the next bytes. */
  function filling(): Piece {
    const last = waiting.at(-1);
    if (last !== undefined && !isFull(last)) return last;
    const piece = { buffer: acquireShared(spoolBuffers), start: 0, end: 0 };
    waiting.push(piece);
    return piece;
  }

  function fetch(): Uint8Array | undefined {
    const [piece] = waiting;
    if (!due || piece === undefined || piece.start === piece.end) return undefined;
    const { buffer, start, end } = piece;
    piece.start = end;
    unread -= end - start;
    if (missing === 0 || waiting.length > 1 || isFull(piece)) {
      waiting.shift();
      fetched.push({ buffer, freeFrom: pulls + 2 });
    }
    due = false;
    gather();
    return buffer.bytes.subarray(start, end);
  }

  /** Delivers bytes once a piece is full, the body has ended, or some time has passed: the work for
   *  a chunk hardly depends on its size, and slow connections, like TLS, deliver about 16 KiB at a
   *  time. */
  function gather(): void {
    if (unread === 0) return;
    if (due || missing === 0 || isCrowded() || socket.destroyed) deliver();
    else gathering ??= setTimeout(deliver, GATHER_MS);
  }

  function deliver(): void {
    clearTimeout(gathering);
    gathering = undefined;
    due = true;
    wake?.();
  }

  function filled(size: number): boolean {
    const piece = filling();
    const own = Math.min(size, missing);
    piece.end += own;
    missing -= own;
    unread += own;
    gather();
    if (size > own) socket.destroy(); // more than announced: no later bytes can be trusted
    else if (missing === 0) onArrived();
    return missing === 0 || !isCrowded();
  }

  return {
    filled,
    room() {
      const { buffer, end } = filling();
      return buffer.bytes.subarray(end);
    },
    take(bytes) {
      let more = true;
      for (let done = 0; done < bytes.length;) {
        const { buffer, end } = filling();
        const part = bytes.subarray(done, done + buffer.bytes.length - end);
        Buffer.from(part.buffer, part.byteOffset, part.length).copy(buffer.bytes, end); // `set` is slow on shared memory
        done += part.length;
        more = filled(part.length);
      }
      return more;
    },
    async pull() {
      pulls++;
      while ((fetched[0]?.freeFrom ?? Infinity) <= pulls) fetched.shift()?.buffer.release();
      for (;;) {
        const chunk = fetch();
        if (missing > 0 && !isCrowded()) socket.resume(); // read on while the reader is busy with this chunk
        if (chunk !== undefined || missing === 0) return chunk;
        if (socket.destroyed) throw socket.errored ?? new Error(`the connection was cut ${missing} bytes before the end`);
        await new Promise<void>((resolve) => (wake = resolve));
        wake = undefined;
      }
    },
    close(aborted) {
      clearTimeout(gathering);
      socket.off('close', deliver);
      if (missing > 0) socket.destroy();
      // A reader that left early, or was aborted, may still use some of the buffers.
      const free = unread === 0 && missing === 0 && !aborted;
      for (const { buffer } of [...waiting.splice(0), ...fetched.splice(0)]) {
        if (free) buffer.release();
        else buffer.forget();
      }
      wake?.(); // a pull that waits ends with an error
      return Promise.resolve();
    },
  };
}
