// Plain JavaScript, as file-worker.mjs is.

import { fdatasync } from 'node:fs';
import { Socket } from 'node:net';

/** What all sockets read into: their bytes are taken before the next one reads. */
const room = Buffer.allocUnsafeSlow(2 ** 20);
/** Bytes that are still read, and dropped, when no more can be taken: a client that is still sending
 *  may not read the response if the connection closes together with it. */
const MAX_DROPPED = 64 * 2 ** 20;
const MAX_DROP_MS = 30_000;

/** @typedef {object} Receiving
 *  @property {readonly Uint8Array[]} begun - the first bytes
 *  @property {number} socket - a descriptor, closed at the end
 *  @property {number} length - how many bytes to read from it
 *  @property {(bytes: Uint8Array) => void} take - may throw: then no more are taken
 *  @property {number} file - the descriptor of the file that `take` writes to
 *  @property {number} syncSize - whenever so many bytes have been written, they are synced; at the
 *  end too, if there were so many
 *  @property {(error: unknown) => void} done - called later, when the file is not used any more. The
 *  error has the code DISCONNECTED if the client has closed the connection. After other errors the
 *  socket stays open: the client can read the response while it is still sending */

/** Reads bytes from a socket until there are `length` of them.
 *  @param {Receiving} receiving
 *  @returns {() => void} stops it */
export function receive({ begun, socket: descriptor, length, take, file, syncSize, done }) {
  let [left, taken, dropped, unsynced] = [length, 0, 0, 0];
  let [isEnded, isSyncing, isDone] = [false, false, false];
  /** @type {{ error: unknown } | undefined} */
  let failure;
  /** @type {NodeJS.Timeout | undefined} */
  let late;

  /** @param {Uint8Array} bytes */
  function takeOrDrop(bytes) {
    if (failure !== undefined) {
      dropped += bytes.length;
      return;
    }
    try {
      take(bytes);
      taken += bytes.length;
      unsynced += bytes.length;
      if (unsynced >= syncSize) sync();
    } catch (error) {
      fail(error);
    }
  }
  function sync() {
    if (isSyncing) return;
    isSyncing = true;
    unsynced = 0;
    fdatasync(file, (error) => {
      isSyncing = false;
      if (error === null) finish();
      else fail(error);
    });
  }
  /** @param {unknown} error */
  function fail(error) {
    failure ??= { error };
    if (!isEnded) late ??= setTimeout(end, MAX_DROP_MS);
    finish();
  }
  /** @param {Error} [error] */
  function end(error) {
    if (isEnded) return;
    isEnded = true;
    clearTimeout(late);
    socket.destroy();
    if (error !== undefined) failure ??= { error };
    finish();
  }
  function finish() {
    if (isDone || isSyncing || (failure === undefined && !isEnded)) return;
    if (failure === undefined && taken >= syncSize && unsynced > 0) return sync();
    isDone = true;
    queueMicrotask(() => done(failure?.error));
  }

  for (const bytes of begun) takeOrDrop(bytes);
  const socket = new Socket({
    fd: descriptor,
    writable: false,
    allowHalfOpen: true, // else its end would end the response too
    onread: {
      buffer: () => (left < room.length ? room.subarray(0, left) : room),
      callback(size, buffer) {
        left -= size;
        takeOrDrop(buffer.subarray(0, size));
        if (left === 0 || dropped > MAX_DROPPED) end();
        return !isEnded;
      },
    },
  });
  const disconnected = () => end(Object.assign(new Error('the client has disconnected'), { code: 'DISCONNECTED' }));
  socket.once('end', disconnected).once('error', disconnected);
  if (left === 0) end();
  return () => end(new Error('receiving was stopped'));
}
