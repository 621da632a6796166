import type { FileHandle } from 'node:fs/promises';
import { createByteBudget } from '../../async/byte-budget.ts';
import { detachOf } from '../../io/detachable-body.ts';
import type { RunningHash } from '../../io/running-hash.ts';

/** The bytes of all streams that wait to be written while further ones arrive. On a busy machine it
 *  may take as long as many writes until a worker has a processor. */
const waiting = createByteBudget(16 * 2 ** 20);
/** Bytes that are synced at once while further ones arrive. */
const SYNC_SIZE = 8 * 2 ** 20;

/** Writes the bytes of `body` to a new file, and hashes them, while the next ones arrive. Large
 *  bodies are synced then too, so that the disk is busy all the time, and little is left to sync
 *  when the client waits.
 *  @returns the number of bytes
 *  @throws what `body` throws, the file system's errors */
export async function writeStream(
  file: FileHandle,
  body: AsyncIterable<readonly Uint8Array[]>,
  { hash, signal }: { hash: RunningHash; signal: AbortSignal },
): Promise<number> {
  return (await receiveStream(file, body, { hash, signal })) ?? collectStream(file, body, { hash, signal });
}

/** Lets a worker read the bytes from the client's socket. @returns undefined: the body has to be
 *  iterated over */
async function receiveStream(
  file: FileHandle,
  body: AsyncIterable<readonly Uint8Array[]>,
  { hash, signal }: { hash: RunningHash; signal: AbortSignal },
): Promise<number | undefined> {
  const detach = detachOf(body);
  if (detach === undefined) return undefined;
  const receive = hash.receiver();
  if (receive === undefined) return undefined;
  const bytes = await detach();
  if (bytes === undefined) return undefined;
  await receive(file, bytes, { syncSize: SYNC_SIZE, signal });
  return bytes.size;
}

async function collectStream(
  file: FileHandle,
  body: AsyncIterable<readonly Uint8Array[]>,
  { hash, signal }: { hash: RunningHash; signal: AbortSignal },
): Promise<number> {
  const sync = createEarlySync(file);
  let failure: { error: unknown } | undefined;
  let last: Promise<void> = Promise.resolve();
  let size = 0;
  try {
    for await (const batch of body) {
      const length = batch.reduce((sum, chunk) => sum + chunk.length, 0);
      const lease = waiting.lease();
      await lease.reserve(length, signal);
      last = hash
        .append(file, batch)
        .then(
          () => sync.wrote(length),
          (error: unknown) => void (failure ??= { error }),
        )
        .finally(lease.release);
      size += length;
      if (failure !== undefined) break;
    }
  } finally {
    await last; // writes end in their order
    await sync.stop();
  }
  if (failure !== undefined) throw failure.error;
  if (size >= SYNC_SIZE) await file.datasync();
  return size;
}

function createEarlySync(file: FileHandle) {
  let unsynced = 0;
  let syncing: Promise<void> | undefined;
  return {
    wrote(size: number): void {
      unsynced += size;
      if (syncing !== undefined || unsynced < SYNC_SIZE) return;
      unsynced = 0;
      syncing = file.datasync().then(() => void (syncing = undefined));
      syncing.catch(() => undefined); // thrown by `stop`
    },
    /** Resolves when the file is no longer used. @throws the file system's errors: bytes may be
     *  lost, and no later sync would tell */
    async stop(): Promise<void> {
      await syncing;
    },
  };
}
