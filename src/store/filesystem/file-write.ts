import { constants } from 'node:fs';
import { mkdir, open, rename, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { absentAsUndefined } from '../../io/absent.ts';
import { syncDirectory } from '../../io/sync-directory.ts';
import { SourceError, wrongLength } from '../failure.ts';
import { V1 } from '../keys.ts';
import type { StoreSource, WriteContext } from '../store.ts';

/** Creates `file` from a source and syncs it. @throws SourceError, OciError SIZE_INVALID, and the
 *  file system's errors */
export async function writeFile(file: string, source: StoreSource, signal: AbortSignal): Promise<void> {
  const handle = await open(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o644);
  try {
    let size = 0;
    for await (const chunk of chunksOf(source, signal)) {
      size += chunk.length;
      if (size > source.size) throw wrongLength(source.size, size);
      await writeAll(handle, chunk);
    }
    if (size < source.size) throw wrongLength(source.size, size);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Moves a source's spare file to `path` and syncs it. False: it is on another file system.
 *  @throws OciError SIZE_INVALID, and the file system's errors */
export async function moveSpare({ path: file, handle }: NonNullable<StoreSource['spare']>, size: number, path: string): Promise<boolean> {
  const found = await handle.stat();
  if (found.size !== size) throw wrongLength(size, found.size);
  await handle.sync();
  try {
    await publish(file, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EXDEV') return false;
    throw error;
  }
}

async function* chunksOf(source: StoreSource, signal: AbortSignal): AsyncIterable<Uint8Array> {
  try {
    yield* await source.open({ signal });
  } catch (cause) {
    throw new SourceError('the source failed', { cause });
  }
}

/** Writes a chunk at the file's position. */
export async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.length;) at += (await handle.write(chunk, at)).bytesWritten;
}

/** How often a directory is made again that another call removes, because it is empty. */
const MAX_TRIES = 10;

/** Creates the directory that all keys share, durably, when the function that it returns is first
 *  called. A volatile write does not sync the directories that it creates: only objects of its own
 *  kind may lie below those. */
export function createTop(directory: string): () => Promise<void> {
  let made: Promise<void> | undefined;
  async function make(): Promise<void> {
    const top = join(directory, V1);
    for (let tries = 0; ; tries++) {
      try {
        return await syncMade(top, await mkdir(top, { recursive: true }));
      } catch (error) {
        // Absent: it was there, and was removed before mkdir had looked at it.
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || tries === MAX_TRIES) throw error;
      }
    }
  }
  return () => {
    made ??= make();
    made.catch(() => (made = undefined)); // the next write tries again
    return made;
  };
}

/** Directories that are being created and synced. */
const making = new Set<Promise<void>>();

/** Renames a finished file to `path`, durably unless it is `volatile`. The directory may be
 *  missing, or may be removed at this moment because it is empty. */
export async function publish(file: string, path: string, { volatile = false }: Pick<WriteContext, 'volatile'> = {}): Promise<void> {
  const parent = dirname(path);
  const synced: Promise<void>[] = [];
  for (let tries = 0; ; tries++) {
    try {
      await rename(file, path);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || tries === MAX_TRIES) throw error;
      // Absent: it was there, and was removed before mkdir had looked at it.
      const made = absentAsUndefined(mkdir(parent, { recursive: true }));
      if (!volatile) synced.push(hold(made.then((first) => syncMade(parent, first))));
      await made;
    }
  }
  if (!volatile) await Promise.all([syncRenamed(parent, undefined), ...synced]);
}

/** Other writes may have created directories above a file and not synced them yet. */
export async function directoriesAreSynced(): Promise<void> {
  if (making.size > 0) await Promise.all(making);
}

/** Makes the name of a file that has been renamed into `parent` durable. @param first the first
 *  directory that another thread had to create for it */
export async function syncRenamed(parent: string, first: string | undefined): Promise<void> {
  if (first !== undefined) void hold(syncMade(parent, first)); // awaited with all others
  await Promise.all([syncDirectory(parent), directoriesAreSynced()]);
}

/** Lets all writes wait that may use directories before they are synced. */
function hold(syncing: Promise<void>): Promise<void> {
  const held = syncing.finally(() => making.delete(held));
  held.catch(() => undefined); // thrown to those who wait
  making.add(held);
  return held;
}

/** Syncs the directories that got new entries when `directory` was made: all above it, up to the
 *  one that holds `first`. @param first the first that was made; undefined: none was */
async function syncMade(directory: string, first: string | undefined): Promise<void> {
  for (let at = directory; first !== undefined && at !== dirname(first);) {
    at = dirname(at);
    await syncDirectory(at);
  }
}
