// Plain JavaScript: stripping types takes 15 MB in every thread, permanently, and the compile cache
// does not help here (docs/decisions/spool-threads.md).

import { createHash } from 'node:crypto';
import { readSync, writeSync, writevSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { receive } from './receive.mjs';

/** @import { FileReply, FileRequest } from './file-workers.ts' */

/** @type {Map<number, import('node:crypto').Hash>} */
const hashes = new Map();
/** Stops the receiving of a hash.
 *  @type {Map<number, () => void>} */
const receiving = new Map();
const back = Buffer.allocUnsafeSlow(2 ** 18);
/** Bytes that one system call writes. For larger writes, the kernel looks for larger contiguous
 *  runs of free memory, which in a virtual machine the host often has to provide first: 64 MiB were
 *  measured to take 40 to 90 ms of CPU time in calls of 32 KiB, and 25 to 160 ms in calls of 256
 *  KiB. */
const WRITE_BYTES = 2 ** 15;

/** @param {number} id */
function hashOf(id) {
  const hash = hashes.get(id);
  if (hash === undefined) throw new Error(`there is no hash ${id}`);
  return hash;
}

/** @param {number} descriptor
 *  @param {readonly Uint8Array[]} pieces */
function append(descriptor, pieces) {
  const size = pieces.reduce((sum, { length }) => sum + length, 0);
  const written = writevSync(descriptor, pieces);
  if (written === size) return;
  // A signal has interrupted it, or the disk is nearly full.
  writeAll(descriptor, Buffer.concat(pieces).subarray(written));
}

/** @param {number} descriptor
 *  @param {Uint8Array} bytes */
function writeAll(descriptor, bytes) {
  for (let at = 0; at < bytes.length;) at += writeSync(descriptor, bytes, at);
}

/** Receives what `execute` cannot wait for: the reply comes when all bytes are there.
 *  @param {Extract<FileRequest, { kind: 'receive' }>} request */
function startReceiving({ id, descriptor, ...from }) {
  const hash = hashOf(id);
  const stop = receive({
    ...from,
    file: descriptor,
    take(bytes) {
      writeAll(descriptor, bytes);
      hash.update(bytes);
    },
    done(error) {
      receiving.delete(id);
      reply(error === undefined ? { id } : { id, error: describe(error) });
    },
  });
  receiving.set(id, stop);
}

/** @param {FileRequest} request
 *  @returns {Omit<FileReply, 'id'>}
 *  @throws the file system's errors */
function execute(request) {
  const { id, kind } = request;
  if (kind === 'open') {
    hashes.set(id, createHash(request.algorithm));
    return {};
  }
  const hash = hashOf(id);
  if (kind === 'write') {
    const { descriptor, bytes, position } = request;
    for (let done = 0; done < bytes.length;) {
      done += writeSync(descriptor, bytes, done, Math.min(bytes.length - done, WRITE_BYTES), position + done);
    }
  } else if (kind === 'append') {
    append(request.descriptor, request.pieces);
  } else if (kind === 'hash') {
    for (let at = request.start; at < request.end;) {
      const count = readSync(request.descriptor, back, 0, Math.min(back.length, request.end - at), at);
      if (count === 0) throw new Error('the spool file is shorter than the bytes written to it');
      hash.update(back.subarray(0, count));
      at += count;
    }
  } else if (kind === 'digest') {
    return { hex: hash.copy().digest('hex') };
  } else {
    hashes.delete(id);
  }
  return {};
}

/** Hashes what a request has written. @param {FileRequest} request */
function hashWritten(request) {
  if (request.kind === 'write' && request.hashed) hashOf(request.id).update(request.bytes);
  if (request.kind !== 'append') return;
  const hash = hashOf(request.id);
  for (const piece of request.pieces) {
    hash.update(piece);
    piece.buffer.transfer(0); // else the garbage collector frees it, later
  }
}

/** @param {FileRequest} request
 *  @returns {Omit<FileReply, 'id'>} */
function answer(request) {
  try {
    return execute(request);
  } catch (error) {
    return { error: describe(error) };
  }
}

/** @param {unknown} error
 *  @returns {FileReply['error']} */
function describe(error) {
  const { message, code } = /** @type {NodeJS.ErrnoException} */ (error);
  return { message, code };
}

/** @param {FileReply} message */
function reply(message) {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(message);
}

parentPort?.on('message', (/** @type {FileRequest} */ request) => {
  if (request.kind === 'receive') return startReceiving(request);
  if (request.kind === 'stop') return receiving.get(request.id)?.();
  const answered = answer(request);
  reply({ id: request.id, ...answered });
  if (answered.error === undefined) hashWritten(request);
});
