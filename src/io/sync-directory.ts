import { open } from 'node:fs/promises';

/** Syncs that have not begun: a further request for the same directory joins them. */
const waiting = new Map<string, Promise<void>>();
const running = new Map<string, Promise<void>>();

/** Makes the creations, renames and removals in a directory durable. Any number of concurrent
 *  requests cost at most two syncs. It is not an error if the directory no longer exists, or if its
 *  file system cannot sync it, as some network file systems cannot.
 *  @throws the file system's errors */
export function syncDirectory(path: string): Promise<void> {
  const joined = waiting.get(path);
  if (joined !== undefined) return joined;
  const turn = (running.get(path) ?? Promise.resolve())
    .catch(() => undefined) // thrown to the callers that asked for it
    .then(() => {
      waiting.delete(path);
      running.set(path, turn);
      return sync(path);
    })
    .finally(() => {
      if (running.get(path) === turn) running.delete(path);
    });
  waiting.set(path, turn);
  return turn;
}

async function sync(path: string): Promise<void> {
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
}
