import { rm } from 'node:fs/promises';
import { LRUCache } from 'lru-cache';
import type { Digest } from '../../oci/digest.ts';
import type { SpoolContent } from './progress.ts';

/** The spool file of a download that ended too early. */
export interface UnfinishedFile {
  path: string;
  content: SpoolContent;
  /** Releases the room on disk that is reserved for it. */
  release(this: void): void;
}

/** Spool files that the next download of the same blob continues (promise 20). */
export interface UnfinishedFiles {
  /** Keeps a file for a while, then removes it. */
  add(this: void, file: UnfinishedFile): void;
  /** The file with the most of a blob, which now belongs to the caller. */
  take(this: void, digest: Digest): UnfinishedFile | undefined;
}

/** How long a file is kept, in ms. The kubelet retries an image within 5 minutes. */
const LIFE_MS = 15 * 60_000;
const MAX_FILES = 32;

/** The record of a spool file's progress. */
export function progressPath(path: string): string {
  return path.replace(/\.spool$/, '.progress');
}

export function createUnfinishedFiles(): UnfinishedFiles {
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
