import { open } from 'node:fs/promises';
import { freshRuns } from '../async/fresh-runs.ts';

/** Codes of errors after which there is nothing to sync: the directory is gone, or its file system
 *  cannot sync it, as some network file systems cannot. */
export const UNSYNCABLE: readonly string[] = ['ENOENT', 'ENOTDIR', 'EINVAL', 'ENOTSUP', 'EPERM'];

/** Makes the creations, renames and removals in a directory durable. Any number of concurrent
 *  requests cost at most two syncs. An UNSYNCABLE directory is no error.
 *  @throws the file system's errors */
export const syncDirectory: (path: string) => Promise<void> = freshRuns(async (path) => {
  try {
    const handle = await open(path, 'r');
    try {
      await handle.sync();
    } finally {
      handle.close().catch(() => undefined); // nothing depends on it
    }
  } catch (error) {
    if (!UNSYNCABLE.includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
});
