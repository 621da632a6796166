import { randomUUID } from 'node:crypto';
import { link, open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { OciError } from '../../oci/error.ts';
import { fileFailure } from '../failure.ts';
import { checkKey, checkPrefix } from '../keys.ts';
import { inOrder, type UploadPart, type UploadStore } from '../upload-store.ts';
import { writeStream } from './file-stream.ts';
import { createTop, publish, writeAll } from './file-write.ts';
import type { FilesystemStore } from './filesystem.ts';
import { createRecordThread } from './record-thread.ts';

const COPY_SIZE = 1024 * 1024;
/** Bytes that are copied to the thread for small files. */
const MAX_RECORD = 64 * 1024;

/** Carries an error of the body past the translation of file errors. */
class BodyError extends Error {
  override readonly name = 'BodyError';
}

/** Stores uploads in a directory: each stream is written to a temporary file, synced and renamed.
 *  Small objects are read and written by a thread of their own. */
export function filesystemUploads(store: FilesystemStore): UploadStore {
  const { directory, temporaryDirectory } = store;
  const pathOf = (key: string): string => `${directory}/${checkKey(key)}`;
  const translated = <T>(doing: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> =>
    translate(directory, { doing, signal }, work);

  const topIsMade = createTop(directory);
  const records = createRecordThread(temporaryDirectory);

  const write: UploadStore['write'] = async (key, source, context) => {
    const { bytes } = source;
    if (bytes === undefined || bytes.length !== source.size || bytes.length > MAX_RECORD) return store.write(key, source, context);
    const { signal, volatile = false } = context;
    const path = pathOf(key);
    await translated(`writing ${key}`, signal, async () => {
      if (volatile) await topIsMade();
      await records.write([{ path, bytes }], { volatile });
    });
  };
  const writeEach = inOrder(write);

  return {
    ...store,
    minPartSize: undefined,
    write,

    async writeInOrder(objects, { signal }) {
      if (objects.some(({ bytes }) => bytes.length > MAX_RECORD)) return writeEach(objects, { signal });
      const files = objects.map(({ key, bytes }) => ({ path: pathOf(key), bytes }));
      await translated(`writing ${objects.map(({ key }) => key).join(', ')}`, signal, () => records.write(files, { volatile: false }));
    },

    readSmall(key, maxBytes, { signal }) {
      const path = pathOf(key);
      return translated(`reading ${key}`, signal, () => records.read(path, maxBytes));
    },

    async stat(key, { signal }) {
      const path = pathOf(key);
      const found = await translated(`looking up ${key}`, signal, () => records.stat(path));
      return found?.isFile === true ? { size: found.size, modified: new Date(found.modified) } : undefined;
    },

    async *list(prefix, context) {
      const folder = `${directory}/${checkPrefix(prefix)}`;
      const found = await translated(`listing ${prefix}`, context.signal, () => records.stat(folder.slice(0, folder.lastIndexOf('/'))));
      // Pushes often look for sweeps and find none.
      if (found !== undefined) yield* store.list(prefix, context);
    },

    async close() {
      await records.close();
      await store.close();
    },

    writeStream(key, body, { signal, volatile = false, hash, check }) {
      const path = pathOf(key);
      return translated(`writing ${key}`, signal, async () => {
        if (volatile) await topIsMade();
        let size = 0;
        await writeFile(temporaryDirectory, { path, volatile }, async (file) => {
          size = await writeStream(file, withBodyErrors(body), { hash, signal });
          await check?.();
        });
        return size;
      });
    },

    compose(parts, key, { signal }) {
      const path = pathOf(key);
      return translated(`joining ${key}`, signal, async () => {
        const [only] = parts;
        if (parts.length === 1 && only !== undefined && (await linkFile(pathOf(only.key), { temporaryDirectory, path }))) return;
        await writeFile(temporaryDirectory, { path, volatile: false }, async (file) => {
          for (const part of parts) await append(file, { ...part, path: pathOf(part.key) }, signal);
        });
      });
    },
  };
}

/** Runs `work`, with the errors of a store. */
function translate<T>(directory: string, { doing, signal }: { doing: string; signal: AbortSignal }, work: () => Promise<T>): Promise<T> {
  if (signal.aborted) return Promise.reject(signal.reason as Error);
  return work().catch((error: unknown) => {
    if (error instanceof BodyError) throw error.cause;
    if (error instanceof OciError) throw error; // of a stream's check
    signal.throwIfAborted();
    throw fileFailure(error, doing, directory);
  });
}

/** Writes a file by `fill`, durably unless it is `volatile`, and moves it to `path`. */
async function writeFile(
  temporaryDirectory: string,
  { path, volatile }: { path: string; volatile: boolean },
  fill: (file: FileHandle) => Promise<void>,
): Promise<void> {
  const temporary = join(temporaryDirectory, `upload-${randomUUID()}`);
  try {
    const file = await open(temporary, 'wx', 0o644);
    try {
      await fill(file);
      if (!volatile) await file.sync();
    } finally {
      await file.close();
    }
    await publish(temporary, path, { volatile });
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined); // the temporary directory goes with the process
    throw error;
  }
}

/** Copies a part to the end of `file`. */
async function append(file: FileHandle, { path, key, size }: UploadPart & { path: string }, signal: AbortSignal): Promise<void> {
  const part = await open(path, 'r');
  try {
    const buffer = Buffer.allocUnsafe(Math.min(COPY_SIZE, Math.max(1, size)));
    for (let at = 0; at < size;) {
      signal.throwIfAborted();
      const { bytesRead } = await part.read(buffer, 0, Math.min(buffer.length, size - at), at);
      if (bytesRead === 0) throw new Error(`${key} ends at ${at} instead of ${size}`);
      await writeAll(file, buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
  } finally {
    await part.close();
  }
}

/** Gives a file another name without copying it. @returns false: this file system has no hard
 *  links */
async function linkFile(from: string, { temporaryDirectory, path }: { temporaryDirectory: string; path: string }): Promise<boolean> {
  // Links to a temporary name first: link(2) replaces nothing, and publish renames durably.
  const temporary = join(temporaryDirectory, `upload-${randomUUID()}`);
  try {
    await link(from, temporary);
    await syncFile(temporary); // the part may be volatile
  } catch (error) {
    if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EXDEV', 'EMLINK'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    return false;
  }
  await publish(temporary, path);
  // rename(2) does nothing, and leaves both names, if they are links to the same file.
  await rm(temporary, { force: true });
  return true;
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

async function* withBodyErrors(body: AsyncIterable<readonly Uint8Array[]>): AsyncIterable<readonly Uint8Array[]> {
  try {
    yield* body;
  } catch (cause) {
    throw new BodyError('the body failed', { cause });
  }
}
