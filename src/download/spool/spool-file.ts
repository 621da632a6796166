import { randomBytes } from 'node:crypto';
import { open, readdir, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { absentAsUndefined } from '../../io/absent.ts';
import { makeDirectory } from '../../io/make-directory.ts';

/** A new file for one download. */
export interface SpoolFile {
  path: string;
  /** Open for reading and writing. */
  handle: FileHandle;
  /** Why the file could not be created; undefined: it was created. After a failure, `handle` is
   *  /dev/null. */
  failure: unknown;
  /** Removes the file, if it still exists. @throws the file system's errors */
  remove(): Promise<void>;
}

export interface SpoolDirectory {
  create(): Promise<SpoolFile>;
}

/** Opens the directory of spool files, and removes the files that a killed process has left there:
 *  all of them are incomplete. */
export async function openSpoolDirectory(directory: string): Promise<SpoolDirectory> {
  await makeDirectory(directory);
  for (const name of await readdir(directory)) if (name.endsWith('.spool')) await rm(join(directory, name), { force: true });

  async function openFile(path: string): Promise<{ handle: FileHandle; failure: unknown }> {
    const create = () => open(path, 'wx+', 0o600);
    try {
      const handle = await absentAsUndefined(create());
      if (handle !== undefined) return { handle, failure: undefined };
      await makeDirectory(directory);
      return { handle: await create(), failure: undefined };
    } catch (failure) {
      return { handle: await open('/dev/null', 'r+'), failure };
    }
  }

  return {
    async create() {
      const path = join(directory, `${randomBytes(12).toString('hex')}.spool`);
      return { path, ...(await openFile(path)), remove: () => rm(path, { force: true }) };
    },
  };
}
