import type { Socket } from 'node:net';
import type { BodySource } from '../../io/body.ts';
import { acquireShared, spoolBuffers, type SharedBuffer } from '../../io/buffers.ts';
import { withSlices } from '../../io/slice.ts';
import { createBypass, SIGN_BYTES } from './bypass.ts';

/** The least room that the socket is given, in bytes: one record of TLS, which Node would otherwise deliver in two parts. */
const LEAST_ROOM = 16 * 1024;
/** How long bytes wait for more, in ms. A line of 1 Gbit/s fills a piece meanwhile. */
const GATHER_MS = 5;
/** How long a slow connection is left unread, in ms, while the kernel collects its bytes. Each time
 *  the process wakes up for them costs up to 200 µs: for 160 Mbit/s, 20 KiB at a time, a sixth of a
 *  processor. */
const REST_MS = 20;
/** A connection below this rate is slow: it brings less than a piece within REST_MS. */
const SLOW_BYTES_PER_MS = 24_000;
/** How long the rate is measured before a connection counts as slow, in ms. */
const REST_AFTER_MS = 50;

/** A body of known length, read from a socket into shared buffers: a chunk stays valid until the
 *  second pull after the one that returned it, and longer if its buffer is held. Its slices are the
 *  bytes that a fast connection brings (bypass.ts). */
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
  buffer: SharedBuffer;
  start: number;
  end: number;
}

export function createRawBody({ socket, length, onArrived }: RawBodyOptions): RawBody {
  /** Pieces with bytes that the reader has not fetched; the last one is being filled. */
  const waiting: Piece[] = [];
  /** Pieces that the reader has fetched, and the pull from which on it does not look at them. */
  const fetched: { buffer: SharedBuffer; freeFrom: number }[] = [];
  let pulls = 0;
  let missing = length;
  let unread = 0;
  let wake: (() => void) | undefined;
  /** The reader may fetch the bytes that have arrived. The first ones it gets at once. */
  let due = true;
  let gathering: NodeJS.Timeout | undefined;
  const startedAt = performance.now();
  /** Bytes that have arrived since the last decision to rest or not. */
  let arrived = 0;
  /** The socket is about to be left unread for a moment, or is. */
  let restingSoon: NodeJS.Immediate | undefined;
  let resting: NodeJS.Timeout | undefined;
  const bypass = createBypass({
    socket,
    missing: () => missing,
    isIdle: () => unread === 0 && restingSoon === undefined && resting === undefined,
    taken(count) {
      missing -= count;
      arrived += count;
    },
  });
  socket.once('close', deliver);

  function isFull({ buffer, end }: Piece): boolean {
    return buffer.bytes.length - end < LEAST_ROOM;
  }

  /** The reader has a whole piece to fetch: no more is read from the socket. Pieces are small when many bodies are read at once. */
  function isCrowded(): boolean {
    const [piece] = waiting;
    return piece !== undefined && (waiting.length > 1 || isFull(piece));
  }

  /** The piece with room for the next bytes. */
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
   *  a chunk hardly depends on its size, and slow lines deliver some 16 KiB at a time, as TLS
   *  does. */
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

  function isSlow(): boolean {
    const milliseconds = performance.now() - startedAt;
    return milliseconds > REST_AFTER_MS && length - missing < SLOW_BYTES_PER_MS * milliseconds;
  }

  /** Leaves a slow connection unread for a moment, once the bytes that are there have been read. */
  function rest(): void {
    if (restingSoon !== undefined || missing === 0 || bypass.isUsed() || !isSlow()) return;
    restingSoon = setImmediate(() => {
      restingSoon = undefined;
      const isFast = arrived >= spoolBuffers.size;
      arrived = 0;
      // The small buffers that remain when many bodies are read at once would be full long before.
      if (missing === 0 || isFast || isCrowded() || filling().buffer.bytes.length < spoolBuffers.size) return;
      socket.pause();
      resting = setTimeout(endRest, REST_MS);
      if (unread > 0) deliver();
    });
  }

  function endRest(): void {
    resting = undefined;
    readOn();
  }

  function readOn(): void {
    if (missing > 0 && !isCrowded() && resting === undefined) socket.resume();
  }

  function filled(size: number): boolean {
    const piece = filling();
    const own = Math.min(size, missing);
    piece.end += own;
    missing -= own;
    unread += own;
    arrived += own;
    gather();
    rest();
    if (size > own) socket.destroy(); // more than was announced: nothing that comes after it can be trusted
    else if (missing === 0) onArrived();
    return missing === 0 || !(bypass.isUsed() || isCrowded());
  }

  const body: RawBody = {
    filled,
    room() {
      const { buffer, end } = filling();
      return buffer.bytes.subarray(end, bypass.isUsed() ? end + SIGN_BYTES : undefined);
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
      const left = bypass.begin();
      if (left !== undefined) return left;
      due ||= bypass.isUsed();
      for (;;) {
        const chunk = fetch();
        if (chunk !== undefined) bypass.read(chunk.length);
        if (chunk === undefined || !bypass.isUsed()) readOn(); // while the reader is busy with this chunk
        if (chunk !== undefined || missing === 0) return chunk;
        if (socket.destroyed) throw socket.errored ?? new Error(`the line was cut ${missing} bytes before the end`);
        await new Promise<void>((resolve) => (wake = resolve));
        wake = undefined;
      }
    },
    close(aborted) {
      bypass.close();
      clearTimeout(gathering);
      clearTimeout(resting);
      clearImmediate(restingSoon);
      socket.off('close', deliver);
      if (missing > 0) socket.destroy();
      // A reader that left early, or was aborted, may still look at some of the buffers.
      const free = unread === 0 && missing === 0 && !aborted;
      for (const { buffer } of [...waiting.splice(0), ...fetched.splice(0)]) {
        if (free) buffer.release();
        else buffer.forget();
      }
      wake?.(); // a pull that waits ends with an error
      return Promise.resolve();
    },
  };
  return withSlices(body, bypass.next);
}
