import { setTimeout as delay } from 'node:timers/promises';
import { agrees, createDigestHash } from '../../oci/digest.ts';
import { isOciError, type OciError } from '../../oci/error.ts';
import type { Log } from '../../telemetry/log.ts';
import type { FilesystemStore } from '../filesystem/filesystem.ts';
import type { LocalTier } from './local-tier.ts';
import { parseBlobKey } from '../keys.ts';
import type { Store } from '../store.ts';
import { createUploadMarkers } from './upload-markers.ts';
import { createKeyedQueue } from '../../async/keyed-queue.ts';
import { backoff } from '../../async/backoff.ts';

export interface UploadsOptions {
  files: FilesystemStore;
  tier: Pick<LocalTier, 'pin' | 'unpin' | 'remove'>;
  remote: Store;
  log: Log;
  observe: { uploadQueue(blobs: number, bytes: number): void };
}
export interface Uploads {
  /** Call it before writing a blob to the local tier that will be enqueued: the blob is not
   *  evicted, and a restart does not lose it. */
  announce(key: string): Promise<void>;
  /** Revokes an announcement: the blob could not be written. */
  withdraw(key: string): Promise<void>;
  /** Uploads a blob of the local tier as soon as possible, unless the remote store has it. `after`:
   *  how many ms to wait, because another replica is expected to upload it. */
  enqueue(key: string, size: number, after?: number): void;
  /** The number of blobs that are not uploaded yet. */
  pending(): number;
  /** Waits for the uploads that succeed now, at most until `signal` is aborted. The others are left
   *  for the next start. */
  close(signal: AbortSignal): Promise<void>;
}

const PARALLEL = 3;
const MAX_PAUSE_MS = 5000;
const UPLOAD_TIMEOUT_MS = 3_600_000;
const REMOVE_TIMEOUT_MS = 30_000;
const START_TIMEOUT_MS = 60_000;

/** Uploads blobs from the local tier to the remote store. A blob is not evicted before it is
 *  uploaded. During an outage it waits, if necessary through a restart (promise 11). */
export async function createUploads({ files, tier, remote, log, observe }: UploadsOptions): Promise<Uploads> {
  const markers = createUploadMarkers({ files, tier, log });
  /** Blobs whose marker is being written. */
  const arriving = new Set<Promise<void>>();
  const stop = new AbortController();
  const { signal: stopped } = stop;
  let failures = 0;
  let bytes = 0;
  const pending = () => arriving.size + queue.size();
  const observePending = () => observe.uploadQueue(pending(), bytes);
  const queue = createKeyedQueue<number>({ parallel: PARALLEL, run: upload, changed: observePending, signal: stopped });

  async function upload(key: string, size: number): Promise<void> {
    const signal = AbortSignal.any([stopped, AbortSignal.timeout(UPLOAD_TIMEOUT_MS)]);
    try {
      await uploadBlob(key, { files, remote, signal });
      if (!isWantedAgain(key)) await markers.remove(key, signal);
      failures = 0;
      bytes -= size;
    } catch (error) {
      if (stopped.aborted) return;
      if (isOciError(error, 'DIGEST_INVALID')) {
        bytes -= size;
        await drop(key, error);
      } else await postpone(key, size, error);
    }
  }

  const isWantedAgain = (key: string): boolean => markers.isAnnounced(key) || queue.isWaiting(key);

  async function postpone(key: string, size: number, error: unknown): Promise<void> {
    failures++;
    log.warn({ event: 'upload-postponed', error, key, waiting: queue.size() }, 'cannot upload a blob yet; keeping it in the local tier');
    if (queue.isWaiting(key)) bytes -= size;
    else queue.add(key, size);
    await delay(backoff(failures, { baseMs: 250, capMs: MAX_PAUSE_MS }), undefined, { signal: stopped }).catch(() => undefined); // stopped
  }

  /** Takes a blob out of the queue that the remote store has refused for its digest: no further
   *  attempt can succeed. A damaged local copy is removed, and the next pull downloads the blob
   *  again. An intact one stays as long as the tier has room for it. */
  async function drop(key: string, error: OciError): Promise<void> {
    const reading = AbortSignal.any([stopped, AbortSignal.timeout(UPLOAD_TIMEOUT_MS)]);
    const isDamaged = !(await isIntact(key, files, reading).catch(() => false));
    log.error(
      { event: 'upload-refused', error, key, isDamaged },
      'the storage rejected a blob whose bytes do not match its digest; dropping the upload',
    );
    if (isWantedAgain(key)) return;
    const signal = AbortSignal.timeout(REMOVE_TIMEOUT_MS);
    await markers.remove(key, signal).catch(() => tier.unpin(key)); // the next start tries again
    if (isDamaged) await tier.remove(key, { signal }).catch(() => undefined); // it is hashed before it is served
  }

  function enqueue(key: string, size: number): void {
    if (queue.isWaiting(key)) return;
    tier.pin(key);
    bytes += size;
    queue.add(key, size);
  }

  /** If the process ends before then, its next start finds the marker. */
  function enqueueLater(key: string, size: number, after: number): void {
    if (after === 0) enqueue(key, size);
    else setTimeout(() => !stopped.aborted && enqueue(key, size), after).unref();
  }

  for await (const { key, size } of markers.list(AbortSignal.timeout(START_TIMEOUT_MS))) enqueue(key, size);
  return {
    announce: markers.announce,
    async withdraw(key) {
      markers.written(key);
      if (!queue.isWaiting(key) && !queue.isRunning(key)) await markers.remove(key, AbortSignal.timeout(REMOVE_TIMEOUT_MS));
    },
    enqueue(key, size, after = 0) {
      const arrival = (markers.written(key) ? Promise.resolve() : markers.announce(key)).then(() => {
        markers.written(key);
        arriving.delete(arrival);
        enqueueLater(key, size, after);
        observePending();
      });
      arriving.add(arrival);
      observePending();
    },
    pending,
    async close(signal) {
      signal.addEventListener('abort', () => stop.abort(), { once: true });
      await Promise.all(arriving);
      while (queue.running().length > 0 && failures === 0 && !signal.aborted) await Promise.race(queue.running());
      stop.abort();
      await Promise.all(queue.running());
    },
  };
}

/** Uploads a blob, unless the remote store has it. An object of another size is damaged, for
 *  example one half of an interrupted upload, and is replaced. */
async function uploadBlob(
  key: string,
  { files, remote, signal }: Pick<UploadsOptions, 'files' | 'remote'> & { signal: AbortSignal },
): Promise<void> {
  const source = await files.source(key, { signal });
  if (source !== undefined && (await remote.stat(key, { signal }))?.size !== source.size) await remote.write(key, source, { signal });
}

async function isIntact(key: string, files: FilesystemStore, signal: AbortSignal): Promise<boolean> {
  const digest = parseBlobKey(key);
  const source = await files.source(key, { signal });
  if (digest === undefined || source === undefined) return false;
  const hash = createDigestHash(digest);
  for await (const chunk of await source.open({ signal })) hash.update(chunk);
  return agrees(hash, digest);
}
