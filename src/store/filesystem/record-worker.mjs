// The thread of record-thread.ts.
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  opendirSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';

/** @import { CreatedFile, RecordReply, RecordRequest, RecordWorkerData } from './record-thread.ts' */

const { directory: DIRECTORY, temporary: TEMPORARY, unsyncable: UNSYNCABLE } = /** @type {RecordWorkerData} */ (workerData);
/** In ms. A file system that is faster than this has no disk to wait for. */
const INSTANT = 0.2;
const SLOW_SYNCS = 3;
/** In ms. */
const RETRY_INTERVAL = 10_000;
const MAX_TRIES = 10;
/** Files of a directory that this thread lists. */
const MAX_LISTED = 32;
/** Why a directory is not removed: it is used, or is gone. */
const IN_USE = ['ENOTEMPTY', 'EEXIST', 'ENOENT', 'EBUSY', 'ENOTDIR'];
const BUFFER = Buffer.allocUnsafeSlow(16 * 1024);

let count = 0;
/** Whether this thread syncs in this batch, as long as no sync waits for a disk. */
let isInstant = true;
/** How many of the last syncs waited for a disk. One alone may be the scheduler's doing. */
let slow = 0;
/** When this thread tries again to sync a file. Until then its requests do not wait for the disk. */
let nextTry = 0;
/** Directories with new files, which are synced at the end of the batch, once for all of its files.
 *
 *  @type {Set<string>} */
const changed = new Set();

/** @param {number} descriptor @param {string} text */
function writeAll(descriptor, text) {
  const written = writeSync(descriptor, text, null, 'latin1');
  if (written === text.length) return;
  const bytes = Buffer.from(text, 'latin1');
  for (let at = written; at < bytes.length;) at += writeSync(descriptor, bytes, at);
}

/** @param {{ path: string, text: string }} file @returns {CreatedFile} */
function create({ path, text }) {
  const temporary = `${TEMPORARY}${++count}`;
  const file = { descriptor: openSync(temporary, 'wx', 0o644), temporary, path };
  try {
    writeAll(file.descriptor, text);
    return file;
  } catch (error) {
    discard(file);
    throw error;
  }
}

/** @param {CreatedFile} file */
function discard({ descriptor, temporary }) {
  closeSync(descriptor);
  rmSync(temporary, { force: true });
}

/** @param {number} descriptor */
function sync(descriptor) {
  const started = performance.now();
  fsyncSync(descriptor);
  const ended = performance.now();
  const isQuick = ended - started < INSTANT;
  isInstant &&= isQuick;
  slow = isQuick ? 0 : slow + 1;
  if (slow >= SLOW_SYNCS) nextTry = ended + RETRY_INTERVAL;
}

/** @param {CreatedFile} file @returns {boolean} whether it is synced */
function syncIfInstant({ descriptor }) {
  if (isInstant) sync(descriptor);
  return isInstant;
}

/** @param {string} directory */
function syncDirectory(directory) {
  try {
    const descriptor = openSync(directory, 'r');
    try {
      sync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    if (!UNSYNCABLE.includes(/** @type {NodeJS.ErrnoException} */ (error).code ?? '')) throw error;
  }
}

/** Syncs the directories that got new entries: all above `directory`, up to the one that holds
 *  `made`. @param {string} directory @param {string} made the first directory that is new */
function syncAbove(directory, made) {
  for (let at = directory; at !== dirname(made);) {
    at = dirname(at);
    syncDirectory(at);
  }
}

/** Gives a file a name. @param {(from: string, path: string) => void} name rename(2) or link(2)
 *  @param {string} from @param {string} path
 *  @returns {string | undefined} the first directory that is new */
function move(name, from, path) {
  /** @type {string | undefined} */
  let made;
  for (let tries = 1; ; tries++) {
    try {
      name(from, path);
      return made;
    } catch (error) {
      // The directory may be missing, or may be removed at this moment because it is empty.
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ENOENT' || tries === MAX_TRIES) throw error;
      made = makeDirectory(dirname(path)) ?? made;
    }
  }
}

/** @param {string} path @returns {string | undefined} the first directory that is new */
function makeDirectory(path) {
  try {
    return mkdirSync(path, { recursive: true });
  } catch (error) {
    // It was there, and was removed before mkdir had looked at it: the caller tries again.
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ENOENT') throw error;
    return undefined;
  }
}

/** Closes a file, and moves it. @param {CreatedFile} file @returns {string | undefined} the first
 *  directory that is new */
function publish(file) {
  closeSync(file.descriptor);
  try {
    return move(renameSync, file.temporary, file.path);
  } catch (error) {
    rmSync(file.temporary, { force: true });
    throw error;
  }
}

/** @param {readonly { path: string, text: string }[]} files @returns {CreatedFile[]} */
function createAll(files) {
  /** @type {CreatedFile[]} */
  const created = [];
  try {
    for (const file of files) created.push(create(file));
    return created;
  } catch (error) {
    for (const file of created) discard(file);
    throw error;
  }
}

/** @param {Extract<RecordRequest, { kind: 'write' }>} request @returns {RecordReply} */
function write({ files, volatile }) {
  const created = createAll(files);
  try {
    if (!volatile && !created.every(syncIfInstant)) return { created };
    for (let file = created.shift(); file !== undefined; file = created.shift()) {
      const made = publish(file);
      if (volatile) continue;
      const parent = dirname(file.path);
      if (made !== undefined) syncAbove(parent, made);
      if (created.length > 0) syncDirectory(parent);
      else changed.add(parent);
    }
    return {};
  } catch (error) {
    for (const file of created) discard(file);
    throw error;
  }
}

/** @param {Extract<RecordRequest, { kind: 'read' }>} request @returns {RecordReply} */
function read({ path, maxBytes }) {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined || !found.isFile() || found.size > maxBytes) return {};
  if (found.size >= BUFFER.length) return { text: readFileSync(path, 'latin1') };
  const descriptor = openSync(path, 'r');
  try {
    const size = readSync(descriptor, BUFFER, 0, BUFFER.length, 0);
    return { text: size < BUFFER.length ? BUFFER.toString('latin1', 0, size) : readFileSync(path, 'latin1') }; // a larger file has replaced it
  } finally {
    closeSync(descriptor);
  }
}

/** @param {string} path @returns {RecordReply} */
function look(path) {
  const found = statSync(path, { throwIfNoEntry: false });
  return found === undefined ? {} : { found: { size: found.size, modified: found.mtimeMs, isFile: found.isFile() } };
}

/** @param {string} path @returns {RecordReply} */
function list(path) {
  /** @type {string[]} */
  const names = [];
  try {
    const directory = opendirSync(path, { bufferSize: MAX_LISTED + 1 });
    try {
      for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
        if (!entry.isFile() || names.length === MAX_LISTED) return {};
        names.push(entry.name);
      }
    } finally {
      directory.closeSync();
    }
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
  const files = names.flatMap((name) => {
    const found = statSync(`${path}/${name}`, { throwIfNoEntry: false });
    return found === undefined ? [] : [{ name, size: found.size, modified: found.mtimeMs }];
  });
  return { files };
}

/** @param {unknown} error */
function isAbsent(error) {
  return ['ENOENT', 'ENOTDIR'].includes(/** @type {NodeJS.ErrnoException} */ (error).code ?? '');
}

/** @param {string} path */
function removeEmptyParents(path) {
  try {
    for (let parent = dirname(path); parent !== DIRECTORY; parent = dirname(parent)) rmdirSync(parent);
  } catch (error) {
    if (!IN_USE.includes(/** @type {NodeJS.ErrnoException} */ (error).code ?? '')) throw error;
  }
}

/** Syncs the directories of a file that has got its name, unless that takes time.
 *
 *  @param {string} path @param {string | undefined} made the first directory that is new
 *  @returns {RecordReply} */
function named(path, made) {
  if (!isInstant) return { made };
  const parent = dirname(path);
  if (made !== undefined) syncAbove(parent, made);
  changed.add(parent);
  return { isSynced: true };
}

/** @param {RecordRequest} request @returns {string[]} the files that it may have given a name */
function pathsOf(request) {
  switch (request.kind) {
    case 'write':
      return request.files.map(({ path }) => path);
    case 'publish':
      return [request.file.path];
    case 'link':
      return [request.path];
    default:
      return [];
  }
}

/** @param {RecordRequest} request @returns {RecordReply} */
function answer(request) {
  try {
    switch (request.kind) {
      case 'write':
        return write(request);
      case 'create': {
        const created = createAll(request.files);
        return { created, isSynced: created.every(syncIfInstant) };
      }
      case 'publish':
        return named(request.file.path, publish(request.file));
      case 'discard':
        discard(request.file);
        return {};
      case 'link':
        return named(request.path, move(linkSync, request.from, request.path));
      case 'list':
        return list(request.path);
      case 'remove-empty-parents':
        removeEmptyParents(request.path);
        return {};
      case 'stat':
        return look(request.path);
      default:
        return read(request);
    }
  } catch (error) {
    const { code } = /** @type {NodeJS.ErrnoException} */ (error);
    return code === 'ENOENT' && request.kind === 'read' ? {} : failure(error); // removed between two calls
  }
}

/** @param {unknown} error @returns {RecordReply} */
function failure(error) {
  const { code, message } = /** @type {NodeJS.ErrnoException} */ (error);
  return { error: { code, message } };
}

/** @param {RecordRequest[]} requests @returns {RecordReply[]} */
function answerAll(requests) {
  isInstant = performance.now() >= nextTry;
  const replies = requests.map(answer);
  for (const directory of changed) {
    try {
      syncDirectory(directory);
    } catch (error) {
      requests.forEach((request, index) => {
        if (pathsOf(request).some((path) => dirname(path) === directory)) replies[index] = failure(error);
      });
    }
  }
  changed.clear();
  return replies;
}

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread has no origin
parentPort?.on('message', (/** @type {RecordRequest[]} */ requests) => parentPort?.postMessage(answerAll(requests)));
