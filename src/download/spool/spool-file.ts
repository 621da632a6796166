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
  /** Undefined: it takes bytes. Else why no file could be made; `handle` is a stand-in that takes nothing useful. */
  failure: unknown;
  /** Removes it, where it still is. @throws the file system's errors */
  remove(): Promise<void>;
}

export interface SpoolDirectory {
  create(): Promise<SpoolFile>;
}

/** The directory of spool files. What a process that was killed left there is removed: none of it is whole. */
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
