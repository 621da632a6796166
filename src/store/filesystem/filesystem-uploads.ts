import { randomUUID } from 'node:crypto';
import { link, open, rm, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { absentAsUndefined } from '../../io/absent.ts';
import { detachOf, withDetach } from '../../io/detachable-body.ts';
import { OciError } from '../../oci/error.ts';
import { fileFailure } from '../failure.ts';
import { checkKey, checkPrefix, isKeySegment } from '../keys.ts';
import type { StoredObject } from '../store.ts';
import { inOrder, type ComposedObject, type SmallObject, type UploadPart, type UploadStore } from '../upload-store.ts';
import { writeStream } from './file-stream.ts';
import { createTop, publish, writeAll } from './file-write.ts';
import type { FilesystemStore } from './filesystem.ts';
import { createRecordThread, type ListedFile, type PreparedFiles, type RecordThread } from './record-thread.ts';

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
  const records = createRecordThread(directory, temporaryDirectory);

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

  async function composeFile(
    { key, parts }: ComposedObject,
    { signal, syncOthers }: { signal: AbortSignal; syncOthers?: LinkOptions['syncOthers'] },
  ): Promise<void> {
    const path = pathOf(key);
    const [only] = parts;
    const { link } = records;
    if (parts.length === 1 && only !== undefined && (await linkFile(pathOf(only.key), { path, temporaryDirectory, link, syncOthers })))
      return;
    await writeFile(temporaryDirectory, { path, volatile: false }, async (file) => {
      for (const part of parts) await append(file, { ...part, path: pathOf(part.key) }, signal);
    });
  }
  const compose: UploadStore['compose'] = (parts, key, { signal }) =>
    translated(`joining ${key}`, signal, () => composeFile({ key, parts }, { signal }));
  const writeEach = inOrder({ write, compose });

  /** Syncs the small objects while the first one is composed. */
  async function composeThen(first: ComposedObject, objects: readonly SmallObject[], signal: AbortSignal): Promise<void> {
    const { sync, publish, discard } = await records.prepare(objects.map(({ key, bytes }) => ({ path: pathOf(key), bytes })));
    try {
      await composeFile(first, { signal, syncOthers: sync });
      await publish();
    } catch (error) {
      await discard();
      throw error;
    }
  }

  return {
    ...store,
    minPartSize: undefined,
    write,

    compose,

    async writeInOrder(objects, { signal }) {
      const [first, ...others] = objects;
      const small = 'parts' in first ? others : [first, ...others];
      if (small.some(({ bytes }) => bytes.length > MAX_RECORD)) return writeEach(objects, { signal });
      const files = small.map(({ key, bytes }) => ({ path: pathOf(key), bytes }));
      await translated(`writing ${objects.map(({ key }) => key).join(', ')}`, signal, () =>
        'parts' in first ? composeThen(first, others, signal) : records.write(files, { volatile: false }),
      );
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
      const list = () => records.list(folder.slice(0, folder.lastIndexOf('/')));
      const found = context.after === undefined ? await translated(`listing ${prefix}`, context.signal, list) : undefined;
      // Pushes often list the chunks of an upload, which are few, and sweeps, of which there are none.
      if (found === undefined) yield* store.list(prefix, context);
      else yield* objectsIn(prefix, found);
    },

    async remove(key, { signal }) {
      const path = pathOf(key);
      await translated(`removing ${key}`, signal, async () => {
        await absentAsUndefined(unlink(path)); // to free the blocks of a large file takes time
        await records.removeEmptyParents(path);
      });
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
          size = await writeStream(file, withDetach(withBodyErrors(body), detachOf(body)), { hash, signal });
          await check?.();
        });
        return size;
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

const NO_LINKS: readonly string[] = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EXDEV', 'EMLINK'];

/** Gives a file another name without copying it. @returns false: this file system has no hard
 *  links */
async function linkFile(from: string, { path, temporaryDirectory, link, syncOthers }: LinkOptions): Promise<boolean> {
  await syncFile(from); // the part may be volatile
  try {
    await link(from, path, syncOthers);
    return true;
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (NO_LINKS.includes(code)) return false;
    if (code !== 'EEXIST') throw error;
  }
  await replaceByLink(from, { temporaryDirectory, path });
  return true;
}

interface LinkOptions extends Pick<RecordThread, 'link'> {
  path: string;
  temporaryDirectory: string;
  syncOthers?: PreparedFiles['sync'] | undefined;
}

/** link(2) replaces nothing, but rename(2) does. */
async function replaceByLink(from: string, { temporaryDirectory, path }: Pick<LinkOptions, 'temporaryDirectory' | 'path'>): Promise<void> {
  const temporary = join(temporaryDirectory, `upload-${randomUUID()}`);
  try {
    await link(from, temporary);
    await publish(temporary, path);
  } finally {
    // rename(2) does nothing, and leaves both names, if they are links to the same file.
    await rm(temporary, { force: true });
  }
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.datasync();
  } finally {
    file.close().catch(() => undefined); // nothing depends on it
  }
}

function* objectsIn(prefix: string, files: readonly ListedFile[]): Generator<StoredObject & { key: string }> {
  const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
  for (const { name, size, modified } of files.toSorted((one, other) => (one.name < other.name ? -1 : 1))) {
    const key = folder + name;
    if (isKeySegment(name) && key.startsWith(prefix)) yield { key, size, modified: new Date(modified) };
  }
}

async function* withBodyErrors(body: AsyncIterable<readonly Uint8Array[]>): AsyncIterable<readonly Uint8Array[]> {
  try {
    yield* body;
  } catch (cause) {
    throw new BodyError('the body failed', { cause });
  }
}
