import { randomBytes } from 'node:crypto';
import { open, readdir, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../../oci/digest.ts';
import { absentAsUndefined } from '../../io/absent.ts';
import { makeDirectory } from '../../io/make-directory.ts';
import { createSpoolProgress, readSpoolProgress, type SpoolContent, type SpoolProgress } from './progress.ts';
import { createUnfinishedFiles, progressPath } from './unfinished.ts';

/** The file of one download. */
export interface SpoolFile {
  path: string;
  /** Open for reading and writing. */
  handle: FileHandle;
  /** Why the file could not be created; undefined: it was created. After a failure, `handle` is
   *  /dev/null. */
  failure: unknown;
  /** The ranges that an earlier download of the blob has left in the file. */
  content: SpoolContent | undefined;
  progress: SpoolProgress;
  /** Removes the file, if it still exists, and the record of its progress. @throws the file
   *  system's errors */
  remove(): Promise<void>;
  /** Keeps the file for the next download of the blob. `release` is called when its room on disk is
   *  free. */
  leave(content: SpoolContent, release: () => void): Promise<void>;
}

export interface SpoolDirectory {
  /** A new file, or, if the download `continues`, the file of an earlier download of the blob. */
  create(digest: Digest, how: { continues: boolean }): Promise<SpoolFile>;
}

/** Room on disk for one file. */
export interface SpoolRoom {
  grow(this: void, total: number): boolean;
  release(this: void): void;
}

/** Opens the directory of spool files. Of the files that a killed process has left there, those
 *  whose progress is recorded are kept for the next download of their blob; the others are
 *  removed. */
export async function openSpoolDirectory(directory: string, reserve: () => SpoolRoom): Promise<SpoolDirectory> {
  const unfinished = createUnfinishedFiles();
  await makeDirectory(directory);
  await takeStock();

  async function takeStock(): Promise<void> {
    const names = (await readdir(directory)).filter((name) => /\.(?:spool|progress|new)$/.test(name));
    const kept = new Set<string>();
    for (const name of names.filter((one) => one.endsWith('.spool'))) {
      const path = join(directory, name);
      const content = await readSpoolProgress(progressPath(path));
      if (content === undefined) continue;
      const room = reserve();
      if (room.grow(content.size)) {
        unfinished.add({ path, content, release: room.release });
        kept.add(path).add(progressPath(path));
      } else {
        room.release();
      }
    }
    for (const path of names.map((name) => join(directory, name))) if (!kept.has(path)) await rm(path, { force: true });
  }

  async function openNew(path: string): Promise<{ handle: FileHandle; failure: unknown }> {
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

  function spoolFile(digest: Digest, file: Pick<SpoolFile, 'path' | 'handle' | 'failure' | 'content'>): SpoolFile {
    const { path } = file;
    const progress = createSpoolProgress(progressPath(path), digest);
    return {
      ...file,
      progress,
      async remove() {
        await progress.remove();
        await rm(path, { force: true });
      },
      async leave(content, release) {
        await progress.finish(content);
        unfinished.add({ path, content, release });
      },
    };
  }

  async function openUnfinished(digest: Digest): Promise<SpoolFile | undefined> {
    const found = unfinished.take(digest);
    if (found === undefined) return undefined;
    const { path, content, release } = found;
    release();
    const handle = await open(path, 'r+').catch(() => undefined); // then it starts anew
    return handle === undefined ? undefined : spoolFile(digest, { path, handle, failure: undefined, content });
  }

  return {
    async create(digest, { continues }) {
      const found = continues ? await openUnfinished(digest) : undefined;
      if (found !== undefined) return found;
      const path = join(directory, `${randomBytes(12).toString('hex')}.spool`);
      return spoolFile(digest, { path, ...(await openNew(path)), content: undefined });
    },
  };
}
