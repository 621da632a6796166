import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { splitDigest, type Digest, type DigestAlgorithm } from '../oci/digest.ts';
import type { DetachedBytes } from './detachable-body.ts';
import { fileWorker, type WorkerHash } from './file-workers.ts';
import { freeMemory } from './free-memory.ts';

/** Pieces that are smaller on average are joined before they are written, in bytes. */
const MIN_PIECE_BYTES = 16 * 1024;
/** If the first call appends fewer bytes, the event loop hashes the whole content. */
const MIN_WORKER_BYTES = 128 * 1024;
/** How often a file that receives bytes is looked at, to tell whether it has become longer. */
const PROGRESS_INTERVAL_MS = 10_000;

/** A hash of bytes that are stored as they arrive. A worker thread computes it if there are
 *  many. */
export interface RunningHash {
  /** Hashes bytes in the event loop. */
  update(this: void, bytes: Uint8Array): void;
  /** Writes pieces at the end of a file, and hashes them. Calls may overlap: they take effect in
   *  their order. The memory of the pieces is freed.
   *  @throws the file system's errors; the error that ended the worker: the hash is then lost */
  append(this: void, file: FileHandle, pieces: readonly Uint8Array[]): Promise<void>;
  /** Undefined: there is no worker for this hash. */
  receiver(this: void): Receiver | undefined;
  /** Whether the bytes so far have this digest. @throws the error that ended the worker */
  agrees(this: void, digest: Digest): Promise<boolean>;
  close(this: void): void;
}

export interface ReceiveOptions {
  /** Each time so many bytes have been written, they are synced while the next ones arrive; at the
   *  end too, if there were so many. */
  syncSize: number;
  signal: AbortSignal;
}

/** Reads bytes from a socket in a worker, writes them at the end of a file, and hashes them.
 *  @throws the file system's errors; Error: the client has disconnected, and `signal` has been
 *  aborted */
export type Receiver = (file: FileHandle, bytes: DetachedBytes, options: ReceiveOptions) => Promise<void>;

export function createRunningHash(algorithm: DigestAlgorithm): RunningHash {
  const own = createHash(algorithm);
  let worker: WorkerHash | undefined;
  let isBegun = false;
  let last: Promise<void> = Promise.resolve();

  /** The worker that computes the hash, chosen with the first bytes; undefined: the event loop
   *  computes it.
   *  @param size - of the next bytes */
  function workerFor(size: number): WorkerHash | undefined {
    if (!isBegun && size >= MIN_WORKER_BYTES) worker = fileWorker()?.open(algorithm);
    isBegun = true;
    return worker;
  }

  function receiver(): Receiver | undefined {
    if (!isBegun) worker = fileWorker('receive')?.open(algorithm);
    isBegun = true;
    const asked = worker;
    return asked && ((file, bytes, options) => receive(asked, file, { ...bytes, ...options }));
  }

  async function appendHere(file: FileHandle, pieces: readonly Uint8Array[]): Promise<void> {
    await writePieces(file, pieces);
    for (const piece of pieces) {
      own.update(piece);
      freeMemory(piece);
    }
  }

  return {
    update(bytes) {
      isBegun = true;
      own.update(bytes);
    },
    append(file, given) {
      const size = given.reduce((sum, { length }) => sum + length, 0);
      const pieces = size < given.length * MIN_PIECE_BYTES ? [Buffer.concat(given)] : given;
      const { ask } = workerFor(size) ?? {};
      last = ask === undefined ? last.then(() => appendHere(file, pieces)) : askAppend(ask, file.fd, pieces);
      return last;
    },
    receiver,
    async agrees(digest) {
      const split = splitDigest(digest);
      if (split.algorithm !== algorithm) return false;
      const hex = worker === undefined ? own.copy().digest('hex') : (await worker.ask({ kind: 'digest' })).hex;
      return hex === split.hex;
    },
    close: () => void worker?.close(),
  };
}

async function askAppend(ask: WorkerHash['ask'], descriptor: number, pieces: readonly Uint8Array[]): Promise<void> {
  await ask({ kind: 'append', descriptor, pieces: pieces.map(withOwnMemory) });
}

async function receive(
  { ask, stop }: WorkerHash,
  file: FileHandle,
  { begun, descriptor: socket, size, progressed, disconnected, syncSize, signal }: DetachedBytes & ReceiveOptions,
): Promise<void> {
  const length = begun.reduce((left, bytes) => left - bytes.length, size);
  const received = ask({ kind: 'receive', descriptor: file.fd, begun, socket, length, syncSize });
  signal.addEventListener('abort', stop);
  if (signal.aborted) stop();
  const watching = watchGrowth(file, progressed);
  try {
    await received;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'DISCONNECTED') await disconnected();
    throw error;
  } finally {
    clearInterval(watching);
    signal.removeEventListener('abort', stop);
  }
}

function watchGrowth(file: FileHandle, grown: () => void): NodeJS.Timeout {
  let last = 0;
  const look = async (): Promise<void> => {
    const { size } = await file.stat();
    if (size > last) grown();
    last = size;
  };
  return setInterval(() => void look().catch(() => undefined), PROGRESS_INTERVAL_MS); // closed meanwhile
}

/** A piece that can be moved to another thread. */
function withOwnMemory(piece: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer, length } = piece;
  return length === buffer.byteLength && buffer instanceof ArrayBuffer ? (piece as Uint8Array<ArrayBuffer>) : Uint8Array.from(piece);
}

/** Writes pieces at the end of a file. */
async function writePieces(file: FileHandle, pieces: readonly Uint8Array[]): Promise<void> {
  const size = pieces.reduce((sum, { length }) => sum + length, 0);
  const { bytesWritten } = await file.writev(pieces);
  if (bytesWritten === size) return;
  // A signal has interrupted it, or the disk is nearly full.
  const rest = Buffer.concat(pieces).subarray(bytesWritten);
  for (let at = 0; at < rest.length;) at += (await file.write(rest, at)).bytesWritten;
}
