import { constants } from 'node:fs';
import { mkdir, open, rename, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { syncDirectory } from '../../io/sync-directory.ts';
import { SourceError, wrongLength } from '../failure.ts';
import type { StoreSource } from '../store.ts';

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

async function writeAll(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let at = 0; at < chunk.length;) at += (await handle.write(chunk, at)).bytesWritten;
}

/** Directories that are being created and synced. */
const making = new Set<Promise<void>>();

/** Renames a finished file to `path`. The directory may be missing, or may be removed at this
 *  moment because it is empty. */
export async function publish(file: string, path: string): Promise<void> {
  const parent = dirname(path);
  for (let tries = 0; ; tries++) {
    try {
      await rename(file, path);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || tries === 10) throw error;
      const made = makeParent(parent).finally(() => making.delete(made));
      making.add(made);
      await made;
    }
  }
  // Other writes may have created directories above this one and not synced them yet.
  await Promise.all([syncDirectory(parent), ...making]);
}

async function makeParent(parent: string): Promise<void> {
  const first = await mkdir(parent, { recursive: true });
  if (first !== undefined) await syncAbove(parent, dirname(first));
}

/** Syncs the directories that got new entries: all above `directory`, up to and including `top`. */
async function syncAbove(directory: string, top: string): Promise<void> {
  let at = directory;
  while (at !== top) {
    at = dirname(at);
    await syncDirectory(at);
  }
}
