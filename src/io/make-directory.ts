import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Makes `path` and what is missing above it. Not by mkdir's own `recursive`: where a file system answers ENOENT whatever is above, as
 *  /proc does, that tries for ever in a thread of its own, and of a read-only one it says ENOENT too.
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

/** @throws `error`, unless a directory is there in spite of it */
async function unlessThere(path: string, error: unknown): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() !== true) throw error;
}
