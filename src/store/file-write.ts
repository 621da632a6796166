import { constants } from 'node:fs';
import { link, mkdir, open, rename, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { wrongLength } from './failure.ts';
import type { StoreSource } from './store.ts';
import { absentAsUndefined } from './walk.ts';

/** Carries what the source itself threw past the translation of file errors. */
export class SourceError extends Error {
  override readonly name = 'SourceError';
}

/** Makes `file`, durably, from a source. @throws SourceError, OciError SIZE_INVALID, and the file system's errors */
export async function writeFile(file: string, source: StoreSource, signal: AbortSignal): Promise<void> {
  if (!(await linkTo(source, file))) await copy(source, file, signal);
}

/** Links the source's own file to `file`; false when there is none or this file system cannot (another device, no links). */
async function linkTo(source: StoreSource, file: string): Promise<boolean> {
  if (source.file === undefined) return false;
  try {
    await link(source.file, file);
  } catch (error) {
    if (NO_LINK.has((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
  const handle = await open(file, 'r');
  try {
    const { size } = await handle.stat();
    if (size !== source.size) throw wrongLength(source.size, size);
    const now = new Date();
    await handle.utimes(now, now);
    await handle.sync();
  } finally {
    await handle.close();
  }
  return true;
}

const NO_LINK = new Set(['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS']);

async function copy(source: StoreSource, file: string, signal: AbortSignal): Promise<void> {
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

/** Puts a finished file in its place. Its directory may be missing, or be removed as empty at this very moment. */
export async function publish(file: string, path: string): Promise<void> {
  const parent = dirname(path);
  for (let tries = 0; ; tries++) {
    try {
      await rename(file, path);
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || tries === 10) throw error;
      const first = await mkdir(parent, { recursive: true });
      if (first !== undefined) await syncAbove(parent, dirname(first));
    }
  }
  await syncDirectory(parent);
}

/** Syncs the directories that have new ones in them: all above `directory`, up to and including `top`. */
async function syncAbove(directory: string, top: string): Promise<void> {
  let at = directory;
  while (at !== top) {
    at = dirname(at);
    await syncDirectory(at);
  }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await absentAsUndefined(open(path, 'r'));
  if (handle === undefined) return;
  try {
    await handle.sync();
  } catch (error) {
    // Some network file systems cannot sync a directory, and need not.
    if (!['EINVAL', 'ENOTSUP', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  } finally {
    await handle.close();
  }
}
