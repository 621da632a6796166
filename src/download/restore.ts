import type { FileHandle } from 'node:fs/promises';
import { inParallel } from '../async/parallel.ts';
import type { Digest } from '../oci/digest.ts';
import type { BlobPart, BlobParts } from '../store/blob-parts.ts';
import { createByteRanges } from './spool/byte-ranges.ts';
import type { SpoolContent } from './spool/progress.ts';
import type { Reservation } from './state.ts';

/** Which blobs have parts in the storage. */
export interface PartFinder {
  mayHave(this: void, digest: Digest): Promise<boolean>;
}

/** How long a list of the blobs that have parts is used, in ms, so that the downloads of one image
 *  ask the storage once. */
const LIST_LIFE_MS = 15_000;

export function createPartFinder(parts: Pick<BlobParts, 'digests'>): PartFinder {
  let listedAt = -Infinity;
  let listed: Promise<Set<Digest>> = Promise.resolve(new Set());
  return {
    async mayHave(digest) {
      if (performance.now() - listedAt > LIST_LIFE_MS) {
        listedAt = performance.now();
        listed = parts.digests({ signal: AbortSignal.timeout(LOOK_TIMEOUT_MS) }).catch(() => new Set<Digest>());
      }
      return (await listed).has(digest);
    },
  };
}

export interface RestoreOptions {
  parts: BlobParts;
  digest: Digest;
  /** Of the blob in bytes, if a manifest states it. */
  expectedSize: number | undefined;
  /** A new spool file. */
  file: Pick<FileHandle, 'write'>;
  room: Pick<Reservation, 'grow'>;
}

/** How long to look for parts, in ms: this may delay the start of a large download. */
const LOOK_TIMEOUT_MS = 500;
/** How long to read parts, in ms, since the client still waits for its headers. The rest comes from
 *  upstream. */
const READ_TIMEOUT_MS = 3000;
const READS_AT_ONCE = 3;

/** Reads the parts that a download on another replica has left in the storage into a spool file.
 *  @returns the content of the file; undefined: it is empty */
export async function restoreParts({ parts, digest, expectedSize, file, room }: RestoreOptions): Promise<SpoolContent | undefined> {
  const found = await parts.list(digest, expectedSize, { signal: AbortSignal.timeout(LOOK_TIMEOUT_MS) }).catch(() => undefined);
  if (found === undefined || !room.grow(found.size)) return undefined;
  const have = createByteRanges();
  const signal = AbortSignal.timeout(READ_TIMEOUT_MS);

  async function read(part: BlobPart): Promise<void> {
    const content = await parts.read(part, { start: 0, end: part.end - part.start - 1 }, { signal });
    let position = part.start;
    for await (const chunk of content?.body ?? []) {
      for (let done = 0; done < chunk.length;) done += (await file.write(chunk, done, chunk.length - done, position + done)).bytesWritten;
      have.add(position, position + chunk.length);
      position += chunk.length;
    }
  }

  await inParallel(found.parts, READS_AT_ONCE, read).catch(() => undefined); // the rest comes from upstream
  return have.total() === 0 ? undefined : { digest, size: found.size, ranges: have.ranges() };
}
