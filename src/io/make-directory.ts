import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Creates `path` and the directories above it that are missing. mkdir's own `recursive` is not
 *  used: on a file system that always answers ENOENT, as /proc does, it retries forever in a thread
 *  of the pool, and for a read-only one it reports ENOENT too.
 *  @throws the file system's errors */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' && dirname(path) !== path) {
      await makeDirectory(dirname(path));
      await mkdir(path).catch((again: unknown) => unlessThere(path, again));
    } else {
      await unlessThere(path, error);
    }
  }
}

/** @throws `error`, unless the directory exists in spite of it */
async function unlessThere(path: string, error: unknown): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() !== true) throw error;
}
