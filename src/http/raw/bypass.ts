import type { Socket } from 'node:net';
import { descriptorOf, isPlainSocket, loadLibc } from '../../io/libc.ts';
import type { SocketSlice } from '../../io/slice.ts';
import { openSplicePipe, type SplicePipe } from '../../io/splice-pipe.ts';

/** A connection that brings this many bytes at once is fast. Slower ones bring pieces that are too
 *  small to be worth a call each. */
const FAST_BYTES = 256 * 1024;
/** How many bytes one call passes on at most; the event loop waits for it. */
const MAX_MOVED = 2 ** 20;
/** How many bytes are read from a fast connection to learn that more have arrived, and at the end of
 *  a body. The end has to be read, since Node's socket chooses its next buffer when it has read into
 *  the last one. */
export const SIGN_BYTES = 16 * 1024;

/** Passes the bytes of a fast connection on to another socket without reading them. */
export interface Bypass {
  /** As few bytes as possible are to be read. */
  isUsed(this: void): boolean;
  /** Call it when the reader wants bytes. @returns those that the other socket did not take, which
   *  come before any others */
  begin(this: void): Buffer | undefined;
  /** Call it when bytes have been read. */
  read(this: void, size: number): void;
  /** As `NextSlice`. */
  next(this: void): Promise<SocketSlice | undefined>;
  close(this: void): void;
}

export interface BypassOptions {
  socket: Socket;
  /** How many bytes of the body have not arrived. */
  missing(this: void): number;
  /** Whether everything that has been read has reached the reader, and nothing is to be read soon. */
  isIdle(this: void): boolean;
  /** Called with the number of bytes that have been taken from the socket. */
  taken(this: void, count: number): void;
}

export function createBypass({ socket, missing, isIdle, taken }: BypassOptions): Bypass {
  let pipe: SplicePipe | undefined;
  let isFast = false;
  /** Bytes that have been passed on since the last pull. */
  let passed = 0;
  let closed = false;
  const held = (): number => pipe?.held() ?? 0;
  const isUsed = (): boolean => isFast && pipe !== undefined;
  const passable = (): number => Math.max(0, missing() - SIGN_BYTES);

  /** @returns false: no more bytes have arrived */
  function fill(pipe: SplicePipe): boolean {
    const from = descriptorOf(socket);
    if (from === undefined || passable() === 0) return false;
    try {
      const count = pipe.fill(from, passable());
      taken(count);
      return count > 0;
    } catch (error) {
      socket.destroy(error as Error); // the next pull throws it
      return false;
    }
  }

  function moveTo(to: number): number {
    let moved = 0;
    while (pipe !== undefined && moved < MAX_MOVED && (held() > 0 || fill(pipe))) {
      const count = pipe.drain(to);
      if (count === 0) break;
      moved += count;
    }
    passed += moved;
    return moved;
  }

  return {
    isUsed,
    begin() {
      const isFull = held() > 0; // the other socket
      isFast = isFull || passed >= FAST_BYTES;
      passed = 0;
      return isFull ? pipe?.read() : undefined;
    },
    read(size) {
      isFast ||= size >= FAST_BYTES;
      if (isUsed() && missing() > 0) socket.pause(); // at the end it is no longer this body's
    },
    async next() {
      if (isFast && pipe === undefined && isPlainSocket(socket)) {
        const libc = await loadLibc();
        if (libc !== undefined && !closed) pipe ??= openSplicePipe(libc);
      }
      const length = passable() + held();
      if (closed || !isUsed() || !isIdle() || length === 0) return undefined;
      socket.pause();
      return { moveTo, length };
    },
    close() {
      closed = true;
      pipe?.close();
      pipe = undefined;
    },
  };
}
