import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { absentAsUndefined } from '../io/absent.ts';
import { fileBuffers } from '../io/buffers.ts';
import { fileBody } from '../io/file-body.ts';
import { mapBody } from '../io/body.ts';
import { splitDigest, type Digest } from '../oci/digest.ts';
import { OciError } from '../oci/error.ts';
import { resolveRange, type ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import type { BlobKeeper } from '../download/downloads.ts';
import type { Reservation } from '../download/state.ts';

export interface SharedBlobsOptions {
  /** A directory that only this process uses. */
  directory: string;
  /** Bytes, including running downloads. */
  maxSize: number;
  /** How long a blob is kept after it was last read, in ms. */
  keepMs: number;
  /** Called when a blob is no longer kept. */
  gone(this: void, digest: Digest): void;
}

/** Verified blobs that this node has recently pulled, for other nodes. They are removed when the
 *  process ends, so nothing is synced to disk. */
export interface SharedBlobs extends BlobKeeper {
  has(this: void, digest: Digest): boolean;
  /** Undefined: this node does not have the blob. @throws OciError RANGE_INVALID, UNAVAILABLE */
  open(this: void, digest: Digest, range: ByteRange | undefined, signal: AbortSignal): Promise<Blob | undefined>;
  /** Bytes on disk, including reserved ones. */
  used(this: void): number;
  close(this: void): void;
}

interface Kept {
  size: number;
  usedAt: number;
  readers: number;
}

const SWEEP_MS = 10_000;
const SHORTEST_SWEEP_MS = 1000;

interface State extends SharedBlobsOptions {
  /** Least recently used first. */
  kept: Map<Digest, Kept>;
  /** Bytes of kept blobs. */
  used: number;
  /** Bytes of running downloads. */
  reserved: number;
}

export function createSharedBlobs(options: SharedBlobsOptions): SharedBlobs {
  const { keepMs } = options;
  const state: State = { ...options, kept: new Map(), used: 0, reserved: 0 };
  const timer = setInterval(() => sweep(state), Math.max(SHORTEST_SWEEP_MS, Math.min(SWEEP_MS, keepMs)));
  timer.unref();
  return {
    parts: undefined,
    used: () => state.used + state.reserved,
    has: (digest) => state.kept.has(digest),
    reserve: () => reserve(state),
    keep: (digest, { size, spare }, { room }) => keep(state, digest, { size, spare, room }),
    open: (digest, range, signal) => openBlob(state, digest, { range, signal }),
    close: () => clearInterval(timer),
  };
}

function reserve(state: State): Reservation {
  let own = 0;
  return {
    grow(total) {
      if (total <= own) return true;
      if (!makeRoom(state, total - own)) return false;
      state.reserved += total - own;
      own = total;
      return true;
    },
    release() {
      state.reserved -= own;
      own = 0;
    },
  };
}

async function keep(
  state: State,
  digest: Digest,
  { size, spare, room }: { size: number; spare: { path: string } | undefined; room: Reservation | undefined },
): Promise<void> {
  if (spare === undefined) throw new OciError('UNAVAILABLE', `there is no spool file of ${digest}`, { origin: 'storage' });
  await rename(spare.path, pathOf(state, digest));
  room?.release();
  const before = state.kept.get(digest);
  state.used += size - (before?.size ?? 0);
  touch(state, digest, { size, usedAt: 0, readers: before?.readers ?? 0 });
}

async function openBlob(
  state: State,
  digest: Digest,
  { range, signal }: { range: ByteRange | undefined; signal: AbortSignal },
): Promise<Blob | undefined> {
  const blob = state.kept.get(digest);
  if (blob === undefined) return undefined;
  const part = range === undefined ? undefined : resolveRange(range, blob.size);
  blob.readers++;
  touch(state, digest, blob);
  const left = (): void => {
    blob.readers--;
    blob.usedAt = performance.now();
  };
  const handle = await absentAsUndefined(open(pathOf(state, digest), 'r')).catch((error: unknown) => {
    left();
    throw fileError(digest, error);
  });
  if (handle === undefined) {
    left();
    return undefined;
  }
  const body = fileBody({
    handle,
    range: part ?? { start: 0, end: blob.size - 1 },
    sendable: true,
    buffers: fileBuffers,
    signal,
    failure: (error) => fileError(digest, error),
    tooShort: () => fileError(digest, new Error('the file is too short')),
  });
  return { digest, size: blob.size, range: part, body: mapBody(body, { onClose: left }) };
}

/** Removes blobs until there is room for `bytes` more. @returns false: there is not that much
 *  room */
function makeRoom(state: State, bytes: number): boolean {
  const isFree = (): boolean => state.used + state.reserved + bytes <= state.maxSize;
  for (const [digest, blob] of state.kept) {
    if (isFree()) break;
    if (blob.readers === 0) drop(state, digest, blob);
  }
  return isFree();
}

function touch({ kept }: State, digest: Digest, blob: Kept): void {
  blob.usedAt = performance.now();
  kept.delete(digest);
  kept.set(digest, blob);
}

function sweep(state: State): void {
  const oldest = performance.now() - state.keepMs;
  for (const [digest, blob] of state.kept) if (blob.usedAt < oldest && blob.readers === 0) drop(state, digest, blob);
}

function drop(state: State, digest: Digest, { size }: Kept): void {
  state.kept.delete(digest);
  state.used -= size;
  state.gone(digest);
  rm(pathOf(state, digest), { force: true }).catch(() => undefined); // the next start removes it
}

function pathOf({ directory }: State, digest: Digest): string {
  return join(directory, splitDigest(digest).hex);
}

function fileError(digest: Digest, cause: unknown): OciError {
  return new OciError('UNAVAILABLE', `the copy of ${digest} on this node cannot be read`, { cause, origin: 'storage' });
}
