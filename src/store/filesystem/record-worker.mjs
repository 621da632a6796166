// The thread of record-thread.ts.
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { parentPort } from 'node:worker_threads';

/** @import { RecordReply, RecordRequest } from './record-thread.ts' */

/** In ms. A file system that is faster than this has no disk to wait for. */
const INSTANT = 0.2;
const MAX_TRIES = 10;

/** @param {number} descriptor @param {string} text */
function writeAll(descriptor, text) {
  const written = writeSync(descriptor, text, null, 'latin1');
  if (written === text.length) return;
  const bytes = Buffer.from(text, 'latin1');
  for (let at = written; at < bytes.length;) at += writeSync(descriptor, bytes, at);
}

/** Whether the files of this batch may be synced by this thread; the time of the first sync decides. */
let isInstant = true;

/** @param {number} descriptor */
function syncIfInstant(descriptor) {
  if (!isInstant) return false;
  const started = performance.now();
  fsyncSync(descriptor);
  isInstant = performance.now() - started < INSTANT;
  return true;
}

/** @param {Extract<RecordRequest, { kind: 'create' }>} request @returns {RecordReply} */
function create({ temporary, text, volatile }) {
  const descriptor = openSync(temporary, 'wx', 0o644);
  try {
    writeAll(descriptor, text);
    return { descriptor, synced: !volatile && syncIfInstant(descriptor) };
  } catch (error) {
    closeSync(descriptor);
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Syncs a directory, and those above it that have new entries. @param {string} directory @param
 *  {string | undefined} made the first one that is new */
function syncDirectories(directory, made) {
  for (let at = directory; ; at = dirname(at)) {
    const descriptor = openSync(at, 'r');
    try {
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    if (made === undefined || at === dirname(made)) return;
  }
}

/** @param {Extract<RecordRequest, { kind: 'publish' }>} request @returns {RecordReply} */
function publish({ descriptor, temporary, path, syncs }) {
  closeSync(descriptor);
  /** @type {string | undefined} */
  let made;
  for (let tries = 1; ; tries++) {
    try {
      renameSync(temporary, path);
      if (syncs) syncDirectories(dirname(path), made);
      return { made };
    } catch (error) {
      // The directory may be missing, or may be removed at this moment because it is empty.
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ENOENT' || tries === MAX_TRIES) {
        rmSync(temporary, { force: true });
        throw error;
      }
      made = mkdirSync(dirname(path), { recursive: true }) ?? made;
    }
  }
}

/** @param {Extract<RecordRequest, { kind: 'discard' }>} request @returns {RecordReply} */
function discard({ descriptor, temporary }) {
  closeSync(descriptor);
  rmSync(temporary, { force: true });
  return {};
}

/** @param {Extract<RecordRequest, { kind: 'read' }>} request @returns {RecordReply} */
function read({ path, maxBytes }) {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined || !found.isFile() || found.size > maxBytes) return {};
  return { text: readFileSync(path, 'latin1') };
}

/** @param {RecordRequest} request @returns {RecordReply} */
function answer(request) {
  try {
    switch (request.kind) {
      case 'create':
        return create(request);
      case 'publish':
        return publish(request);
      case 'discard':
        return discard(request);
      default:
        return read(request);
    }
  } catch (error) {
    const { code, message } = /** @type {NodeJS.ErrnoException} */ (error);
    if (code === 'ENOENT' && request.kind === 'read') return {}; // removed between two calls
    return { error: { code, message } };
  }
}

parentPort?.on('message', (/** @type {RecordRequest[]} */ requests) => {
  isInstant = true;
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
  parentPort?.postMessage(requests.map(answer));
});
