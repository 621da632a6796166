import { randomUUID } from 'node:crypto';
import { link, open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { fileFailure } from '../failure.ts';
import { checkKey } from '../keys.ts';
import type { UploadPart, UploadStore } from '../upload-store.ts';
import { publish } from './file-write.ts';
import type { FilesystemStore } from './filesystem.ts';

const COPY_SIZE = 1024 * 1024;

/** Carries an error of the body past the translation of file errors. */
class BodyError extends Error {
  override readonly name = 'BodyError';
}

/** Stores uploads in a directory: each stream is written to a temporary file, synced and
 *  renamed. */
export function filesystemUploads(store: FilesystemStore): UploadStore {
  const { directory, temporaryDirectory } = store;
  const pathOf = (key: string): string => join(directory, checkKey(key));

  /** Writes a file by `fill`, durably, and moves it to `path`. */
  async function writeFile(path: string, fill: (file: FileHandle) => Promise<void>): Promise<void> {
    const temporary = join(temporaryDirectory, `upload-${randomUUID()}`);
    try {
      const file = await open(temporary, 'wx', 0o644);
      try {
        await fill(file);
        await file.sync();
      } finally {
        await file.close();
      }
      await publish(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined); // the temporary directory goes with the process
      throw error;
    }
  }

  async function translated<T>(doing: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (error instanceof BodyError) throw error.cause;
      signal.throwIfAborted();
      throw fileFailure(error, doing, directory);
    }
  }

  async function append(file: FileHandle, { key, size }: UploadPart, signal: AbortSignal): Promise<void> {
    const part = await open(pathOf(key), 'r');
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

  return {
    ...store,
    minPartSize: undefined,

    writeStream(key, body, { signal }) {
      const path = pathOf(key);
      return translated(`writing ${key}`, signal, async () => {
        let size = 0;
        await writeFile(path, async (file) => {
          for await (const chunk of withBodyErrors(body)) {
            signal.throwIfAborted();
            await writeAll(file, chunk);
            size += chunk.length;
          }
        });
        return size;
      });
    },

    compose(parts, key, { signal }) {
      const path = pathOf(key);
      return translated(`joining ${key}`, signal, async () => {
        const [only] = parts;
        if (parts.length === 1 && only !== undefined && (await linkFile(pathOf(only.key), { temporaryDirectory, path }))) return;
        await writeFile(path, async (file) => {
          for (const part of parts) await append(file, part, signal);
        });
      });
    },
  };
}

/** Gives a file another name without copying it. @returns false: this file system has no hard
 *  links */
async function linkFile(from: string, { temporaryDirectory, path }: { temporaryDirectory: string; path: string }): Promise<boolean> {
  // Links to a temporary name first: link(2) replaces nothing, and publish renames durably.
  const temporary = join(temporaryDirectory, `upload-${randomUUID()}`);
  try {
    await link(from, temporary);
  } catch (error) {
    if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'EXDEV', 'EMLINK'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    return false;
  }
  await publish(temporary, path);
  // rename(2) does nothing, and leaves both names, if they are links to the same file.
  await rm(temporary, { force: true });
  return true;
}

async function* withBodyErrors(body: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  try {
    yield* body;
  } catch (cause) {
    throw new BodyError('the body failed', { cause });
  }
}

async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.length;) at += (await file.write(chunk, at)).bytesWritten;
}
