import { closeSync, constants as file, readSync } from 'node:fs';
import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import type { Libc } from './libc.ts';

/** A pipe of the kernel, through which bytes go from one socket to another without being copied. */
export interface SplicePipe {
  /** How many bytes are in the pipe. */
  held(this: void): number;
  /** Moves bytes that have arrived at a socket into the empty pipe, at most `count`, without
   *  waiting. @returns how many. @throws Error: the connection has failed */
  fill(this: void, from: number, count: number): number;
  /** Moves bytes to a socket, as many as it accepts at once. @returns how many */
  drain(this: void, to: number): number;
  /** Reads some bytes. */
  read(this: void): Buffer;
  close(this: void): void;
}

/** The kernel lends a user without privileges 64 MiB for pipes. */
const MAX_PIPES = 16;
const PIPE_SIZE = 2 ** 20;
/** Bytes read at once. */
const PIECE = 2 ** 14;
/** pipe2(2) */
const O_CLOEXEC = 0o2000000;
/** fcntl(2) */
const F_SETPIPE_SZ = 1031;
/** splice(2) */
const SPLICE_F_NONBLOCK = 2;

let open = 0;

/** Undefined: too many are open, or the process has no descriptors left. */
export function openSplicePipe({ pipe2, fcntl, splice, errno }: Libc): SplicePipe | undefined {
  const ends = new Int32Array(2);
  if (open >= MAX_PIPES || pipe2(ends, file.O_NONBLOCK | O_CLOEXEC) < 0) return undefined;
  open++;
  const [output = -1, input = -1] = ends;
  fcntl(input, F_SETPIPE_SZ, PIPE_SIZE); // if refused, it has its usual 64 KiB
  let held = 0;
  let closed = false;

  return {
    held: () => held,
    fill(from, count) {
      const moved = splice(from, null, input, null, Math.min(count, PIPE_SIZE), SPLICE_F_NONBLOCK);
      if (moved < 0 && errno() !== constants.errno.EAGAIN && errno() !== constants.errno.EINTR) {
        throw new Error(`the connection failed with ${getSystemErrorName(-errno())}`);
      }
      held += Math.max(0, moved);
      return Math.max(0, moved);
    },
    drain(to) {
      // An error of this socket shows when the bytes are read and written to it in the usual way.
      const moved = Math.max(0, splice(output, null, to, null, held, SPLICE_F_NONBLOCK));
      held -= moved;
      return moved;
    },
    read() {
      const bytes = Buffer.allocUnsafeSlow(Math.min(held, PIECE));
      const count = readSync(output, bytes);
      held -= count;
      return bytes.subarray(0, count);
    },
    close() {
      if (closed) return;
      closed = true;
      open--;
      closeSync(output);
      closeSync(input);
    },
  };
}
