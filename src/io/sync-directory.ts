import { open } from 'node:fs/promises';
import { freshRuns } from '../async/fresh-runs.ts';

/** Makes the creations, renames and removals in a directory durable. Any number of concurrent
 *  requests cost at most two syncs. It is not an error if the directory no longer exists, or if its
 *  file system cannot sync it, as some network file systems cannot.
 *  @throws the file system's errors */
export const syncDirectory: (path: string) => Promise<void> = freshRuns(async (path) => {
  try {
    const handle = await open(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (!['ENOENT', 'ENOTDIR', 'EINVAL', 'ENOTSUP', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
});
