import { randomBytes } from 'node:crypto';
import { open, readdir, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { LRUCache } from 'lru-cache';
import type { Digest } from '../../oci/digest.ts';
import { absentAsUndefined } from '../../io/absent.ts';
import { makeDirectory } from '../../io/make-directory.ts';
import { createSpoolProgress, readSpoolProgress, type SpoolContent, type SpoolProgress } from './progress.ts';

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
  await takeStock(directory, unfinished, reserve);

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
      return spoolFile(digest, { path, ...(await openNew(directory, path)), content: undefined });
    },
  };
}

/** Keeps the unfinished files of a former process, and removes all others. */
async function takeStock(directory: string, unfinished: UnfinishedFiles, reserve: () => SpoolRoom): Promise<void> {
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

async function openNew(directory: string, path: string): Promise<{ handle: FileHandle; failure: unknown }> {
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

/** The spool file of a download that ended too early. */
interface UnfinishedFile {
  path: string;
  content: SpoolContent;
  /** Releases the room on disk that is reserved for it. */
  release(this: void): void;
}

/** Spool files that the next download of the same blob continues (promise 20). */
interface UnfinishedFiles {
  /** Keeps a file for a while, then removes it. */
  add(this: void, file: UnfinishedFile): void;
  /** The file with the most of a blob, which now belongs to the caller. */
  take(this: void, digest: Digest): UnfinishedFile | undefined;
}

/** How long a file is kept, in ms. The kubelet retries an image within 5 minutes. */
const LIFE_MS = 15 * 60_000;
const MAX_FILES = 32;

/** The record of a spool file's progress. */
function progressPath(path: string): string {
  return path.replace(/\.spool$/, '.progress');
}

function createUnfinishedFiles(): UnfinishedFiles {
  const files = new LRUCache<Digest, UnfinishedFile>({
    max: MAX_FILES,
    ttl: LIFE_MS,
    ttlAutopurge: true,
    dispose: (file, _, reason) => {
      if (reason !== 'delete') discard(file);
    },
  });

  return {
    add(file) {
      const known = files.get(file.content.digest);
      if (known !== undefined && arrived(known.content) >= arrived(file.content)) discard(file);
      else files.set(file.content.digest, file);
    },
    take(digest) {
      const file = files.get(digest);
      files.delete(digest);
      return file;
    },
  };
}

/** How many bytes of the blob a file holds. */
function arrived({ ranges }: SpoolContent): number {
  return ranges.reduce((sum, [start, end]) => sum + end - start, 0);
}

function discard({ path, release }: UnfinishedFile): void {
  release();
  for (const file of [path, progressPath(path)]) rm(file, { force: true }).catch(() => undefined); // the next start removes it
}
