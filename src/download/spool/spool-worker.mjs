// Plain JavaScript: stripping types takes 15 MB in every thread, permanently, and the compile cache
// does not help here (docs/decisions/spool-threads.md).

import { createHash } from 'node:crypto';
import { readSync, writeSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';

/** @import { SpoolReply, SpoolRequest } from './spool-workers.ts' */
/** @typedef {{ descriptor: number, hash: import('node:crypto').Hash }} File */

/** @type {Map<number, File>} */
const files = new Map();
const back = Buffer.allocUnsafeSlow(2 ** 18);
/** Bytes that one system call writes. For larger writes, the kernel looks for larger contiguous
 *  runs of free memory, which in a virtual machine the host often has to provide first: 64 MiB were
 *  measured to take 40 to 90 ms of CPU time in calls of 32 KiB, and 25 to 160 ms in calls of 256
 *  KiB. */
const WRITE_BYTES = 2 ** 15;

/** @param {number} id */
function fileOf(id) {
  const file = files.get(id);
  if (file === undefined) throw new Error(`no file ${id} is open`);
  return file;
}

/** @param {SpoolRequest} request
 *  @returns {Omit<SpoolReply, 'id'>}
 *  @throws the file system's errors */
function execute(request) {
  if (request.kind === 'open') {
    files.set(request.id, { descriptor: request.descriptor, hash: createHash(request.algorithm) });
    return {};
  }
  const { descriptor, hash } = fileOf(request.id);
  if (request.kind === 'write') {
    const { bytes, position } = request;
    for (let done = 0; done < bytes.length;) {
      done += writeSync(descriptor, bytes, done, Math.min(bytes.length - done, WRITE_BYTES), position + done);
    }
  } else if (request.kind === 'hash') {
    for (let at = request.start; at < request.end;) {
      const count = readSync(descriptor, back, 0, Math.min(back.length, request.end - at), at);
      if (count === 0) throw new Error('the spool file is shorter than the bytes written to it');
      hash.update(back.subarray(0, count));
      at += count;
    }
  } else if (request.kind === 'finish') {
    return { hex: hash.digest('hex') };
  } else {
    files.delete(request.id);
  }
  return {};
}

/** @param {SpoolRequest} request
 *  @returns {Omit<SpoolReply, 'id'>} */
function answer(request) {
  try {
    return execute(request);
  } catch (error) {
    const { message, code } = /** @type {NodeJS.ErrnoException} */ (error);
    return { error: { message, code } };
  }
}

parentPort?.on('message', (/** @type {SpoolRequest} */ request) => {
  const { id } = request;
  const reply = { id, ...answer(request) };
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(reply);
  if (request.kind === 'write' && request.hashed && reply.error === undefined) fileOf(id).hash.update(request.bytes);
});
