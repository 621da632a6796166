import { open, rmdir, stat, unlink, utimes, type FileHandle } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { resolveRange, type ByteRange, type RangeRequest } from '../../oci/range.ts';
import { fileBuffers } from '../../io/buffers.ts';
import { fileFailure, SourceError } from '../failure.ts';
import { fileBody } from '../../io/file-body.ts';
import { moveSpare, publish, writeFile } from './file-write.ts';
import { checkKey, checkPrefix } from '../keys.ts';
import { fileSource, type Store, type StoreContext, type StoreSource } from '../store.ts';
import { createTemporaryDirectory, type TemporaryDirectoryOptions } from './temporary.ts';
import { absentAsUndefined } from '../../io/absent.ts';
import { walk } from './walk.ts';

export interface FilesystemStore extends Store {
  /** Absolute. */
  directory: string;
  /** A private directory of this process on the same file system: a file created here can be moved
   *  into the store. `close` removes it, except files that a later process may continue. If this
   *  process is killed, the next one removes it. */
  temporaryDirectory: string;
  /** An object as the source of a write to another store. Undefined: it is absent. */
  source(key: string, context: StoreContext): Promise<StoreSource | undefined>;
  /** Sets an object's time of modification to now. An absent object is ignored. */
  touch(key: string, context: StoreContext): Promise<void>;
}

export interface FilesystemOptions extends TemporaryDirectoryOptions {
  directory: string;
}

/** Keeps each object in a file whose path below the directory is its key. A write creates a
 *  temporary file, syncs it, renames it and syncs the directory: a complete object survives a power
 *  cut, and an incomplete one is never visible.
 *  @throws OciError UNAVAILABLE: the directory cannot be used */
export async function filesystem(options: FilesystemOptions): Promise<FilesystemStore> {
  const directory = resolve(options.directory);
  const pathOf = (key: string): string => join(directory, checkKey(key));
  const attempt = createAttempt(directory);
  const temporary = await attempt('opening the store', undefined, () => createTemporaryDirectory(directory, options));

  return {
    directory,
    temporaryDirectory: temporary.path,

    async stat(key, { signal }) {
      const path = pathOf(key);
      const found = await attempt(`looking up ${key}`, signal, () => absentAsUndefined(stat(path)));
      return found?.isFile() === true ? { size: found.size, modified: found.mtime } : undefined;
    },

    async read(key, { signal, range }) {
      const path = pathOf(key);
      const opened = await attempt(`opening ${key}`, signal, () => absentAsUndefined(openFile(path)));
      if (opened === undefined) return undefined;
      const { handle, size, modified, sendable } = opened;
      const part = await resolveOrClose(handle, range, size);
      const failure = (error: unknown): Error => fileFailure(error, `reading ${key}`, directory);
      const tooShort = (actual: number): Error => failure(new Error(`the file ends at ${actual} instead of ${size}`));
      const bytes = part ?? { start: 0, end: size - 1 };
      const body = fileBody({ handle, range: bytes, sendable, buffers: fileBuffers, signal, failure, tooShort });
      return { size, modified, range: part, body };
    },

    async write(key, source, { signal }) {
      const path = pathOf(key);
      await attempt(`writing ${key}`, signal, async () => {
        const { spare, size } = source;
        if (spare !== undefined && (await moveSpare(spare, size, path))) return;
        const file = temporary.file();
        try {
          await writeFile(file, source, signal);
          await publish(file, path);
          if (spare !== undefined) await absentAsUndefined(unlink(spare.path));
        } catch (error) {
          await absentAsUndefined(unlink(file));
          throw error;
        }
      });
    },

    async remove(key, { signal }) {
      const path = pathOf(key);
      await attempt(`removing ${key}`, signal, async () => {
        await absentAsUndefined(unlink(path));
        await removeEmptyParents(path, directory);
      });
    },

    async *list(prefix, { signal, after }) {
      const root = directory;
      try {
        yield* walk({ root, prefix: checkPrefix(prefix), after, signal });
      } catch (error) {
        signal.throwIfAborted();
        throw fileFailure(error, `listing ${prefix}`, directory);
      }
    },

    async source(key, context) {
      const path = pathOf(key);
      const found = await attempt(`looking up ${key}`, context.signal, () => absentAsUndefined(stat(path)));
      return found?.isFile() === true ? fileSource(path, found.size) : undefined;
    },

    async touch(key, { signal }) {
      const path = pathOf(key);
      const now = new Date();
      await attempt(`touching ${key}`, signal, () => absentAsUndefined(utimes(path, now, now)));
    },

    close: () => attempt('closing the store', undefined, () => temporary.close()),
  };
}

type Attempt = <T>(doing: string, signal: AbortSignal | undefined, work: () => Promise<T>) => Promise<T>;

function createAttempt(directory: string): Attempt {
  return async (doing, signal, work) => {
    signal?.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      signal?.throwIfAborted();
      throw error instanceof SourceError ? error.cause : fileFailure(error, doing, directory);
    }
  };
}

interface Opened {
  handle: FileHandle;
  size: number;
  modified: Date;
  /** This user owns the file. For files of other users mincore(2) claims that all pages are in
   *  memory. */
  sendable: boolean;
}

async function openFile(path: string): Promise<Opened | undefined> {
  const handle = await open(path, 'r');
  const found = await handle.stat();
  const sendable = found.uid === process.geteuid?.();
  if (found.isFile()) return { handle, size: found.size, modified: found.mtime, sendable };
  await handle.close();
  return undefined;
}

/** The bytes that `range` selects of a file of `size` bytes. @throws OciError RANGE_INVALID, after
 *  closing the file */
async function resolveOrClose(handle: FileHandle, range: RangeRequest | undefined, size: number): Promise<Required<ByteRange> | undefined> {
  try {
    return range === undefined ? undefined : resolveRange(range, size);
  } catch (error) {
    await handle.close();
    throw error;
  }
}

async function removeEmptyParents(path: string, root: string): Promise<void> {
  try {
    for (let parent = dirname(path); parent !== root; parent = dirname(parent)) await rmdir(parent);
  } catch (error) {
    if (!['ENOTEMPTY', 'EEXIST', 'ENOENT', 'EBUSY', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
