import type { Socket } from 'node:net';
import type { BodySource } from '../../io/body.ts';
import { createBufferPool } from '../../io/buffers.ts';

/** Bytes of a piece: few enough to stay in a CPU's cache. Node's own 64 KiB cost a third more time. */
const PIECE = 256 * 1024;
/** Enough for sixteen bodies at once; further ones read into smaller pieces. */
const pieces = createBufferPool(64, PIECE);
/** The least room that the socket is given, in bytes: one record of TLS, which Node would otherwise deliver in two parts. */
const LEAST_ROOM = 16 * 1024;
/** No more is read from the socket while the reader has so many bytes to fetch. */
const HIGH_WATER = PIECE;

/** A body of known length, read from a socket into a few buffers that are reused: a chunk stays
 *  valid until the second pull after the one that returned it. */
export interface RawBody extends BodySource {
  /** Room for the bytes that the socket reads next. */
  room(this: void): Uint8Array;
  /** The socket has read `size` bytes into the room. @returns false: no more for now */
  filled(this: void, size: number): boolean;
  /** Copies bytes that the socket has read into another buffer. @returns as `filled` */
  take(this: void, bytes: Uint8Array): boolean;
}

export interface RawBodyOptions {
  socket: Socket;
  /** In bytes. */
  length: number;
  /** The last byte has arrived, and nothing after it. */
  onArrived(this: void): void;
}

/** Bytes of a piece that wait for the reader: [start, end). */
interface Piece {
  buffer: Buffer;
  start: number;
  end: number;
}

export function createRawBody({ socket, length, onArrived }: RawBodyOptions): RawBody {
  /** Pieces with bytes that the reader has not fetched; the last one is being filled. */
  const waiting: Piece[] = [];
  /** Pieces that the reader has fetched, and after which pull they are free. */
  const fetched: { buffer: Buffer; freeAfter: number }[] = [];
  let pulls = 0;
  let missing = length;
  let unread = 0;
  let wake: (() => void) | undefined;
  let gathering = false;
  socket.once('close', () => wake?.());

  function nextPiece(): Piece {
    const buffer = (fetched[0]?.freeAfter ?? Infinity) <= pulls ? fetched.shift()?.buffer : undefined;
    const piece = { buffer: buffer ?? pieces.acquire(), start: 0, end: 0 };
    waiting.push(piece);
    return piece;
  }

  /** The piece with room for the next bytes. */
  function filling(): Piece {
    const last = waiting.at(-1);
    return last === undefined || last.buffer.length - last.end < LEAST_ROOM ? nextPiece() : last;
  }

  function fetch(): Uint8Array | undefined {
    const [piece] = waiting;
    if (piece === undefined || piece.start === piece.end) return undefined;
    const { buffer, start, end } = piece;
    piece.start = end;
    unread -= end - start;
    if (missing === 0 || waiting.length > 1 || buffer.length - end < LEAST_ROOM) {
      waiting.shift();
      fetched.push({ buffer, freeAfter: pulls + 2 });
    }
    return buffer.subarray(start, end);
  }

  /** Wakes the reader once everything has been read that has arrived by now: Node delivers TLS in records of 16 KiB. */
  function notify(): void {
    if (wake === undefined || gathering) return;
    gathering = true;
    setImmediate(() => {
      gathering = false;
      wake?.();
    });
  }

  function filled(size: number): boolean {
    const piece = filling();
    const own = Math.min(size, missing);
    piece.end += own;
    missing -= own;
    unread += own;
    notify();
    if (size > own) socket.destroy(); // more than was announced: nothing that comes after it can be trusted
    else if (missing === 0) onArrived();
    return missing === 0 || unread < HIGH_WATER;
  }

  return {
    filled,
    room() {
      const { buffer, end } = filling();
      return buffer.subarray(end);
    },
    take(bytes) {
      let more = true;
      for (let done = 0; done < bytes.length;) {
        const { buffer, end } = filling();
        const part = bytes.subarray(done, done + buffer.length - end);
        buffer.set(part, end);
        done += part.length;
        more = filled(part.length);
      }
      return more;
    },
    async pull() {
      pulls++;
      for (;;) {
        const chunk = fetch();
        if (missing > 0 && unread < HIGH_WATER) socket.resume(); // read on while the reader is busy with this chunk
        if (chunk !== undefined || missing === 0) return chunk;
        if (socket.destroyed) throw socket.errored ?? new Error(`the line was cut ${missing} bytes before the end`);
        await new Promise<void>((resolve) => (wake = resolve));
        wake = undefined;
      }
    },
    close(aborted) {
      if (missing > 0) socket.destroy();
      // A reader that left early, or was aborted, may still look at some of the buffers.
      const free = unread === 0 && missing === 0 && !aborted ? pieces.release : pieces.forget;
      for (const { buffer } of [...waiting.splice(0), ...fetched.splice(0)]) free(buffer);
      return Promise.resolve();
    },
  };
}
