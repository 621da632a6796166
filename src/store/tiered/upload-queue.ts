import { setTimeout as delay } from 'node:timers/promises';
import { agrees, createDigestHash } from '../../oci/digest.ts';
import { isOciError, type OciError } from '../../oci/error.ts';
import type { Log } from '../../telemetry/log.ts';
import type { FilesystemStore } from '../filesystem/filesystem.ts';
import type { LocalTier } from './local-tier.ts';
import { parseBlobKey } from '../keys.ts';
import type { Store } from '../store.ts';
import { createUploadMarkers, type UploadMarkers } from './upload-markers.ts';
import { createKeyedQueue, type KeyedQueue } from '../../async/keyed-queue.ts';
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
export async function createUploads(options: UploadsOptions): Promise<Uploads> {
  const stop = new AbortController();
  const markers = createUploadMarkers(options);
  const queue: KeyedQueue<number> = createKeyedQueue<number>({
    parallel: PARALLEL,
    run: (key, size) => upload(uploading, key, size),
    changed: () => observePending(uploading),
    signal: stop.signal,
  });
  const uploading: Uploading = { ...options, markers, queue, arriving: new Set(), stopped: stop.signal, failures: 0, bytes: 0 };
  for await (const { key, size } of markers.list(AbortSignal.timeout(START_TIMEOUT_MS))) enqueue(uploading, key, size);
  return {
    announce: markers.announce,
    async withdraw(key) {
      markers.written(key);
      if (!queue.isWaiting(key) && !queue.isRunning(key)) await markers.remove(key, AbortSignal.timeout(REMOVE_TIMEOUT_MS));
    },
    enqueue: (key, size, after = 0) => enqueueWritten(uploading, key, { size, after }),
    pending: () => pending(uploading),
    async close(signal) {
      signal.addEventListener('abort', () => stop.abort(), { once: true });
      await Promise.all(uploading.arriving);
      while (queue.running().length > 0 && uploading.failures === 0 && !signal.aborted) await Promise.race(queue.running());
      stop.abort();
      await Promise.all(queue.running());
    },
  };
}

interface Uploading extends UploadsOptions {
  markers: UploadMarkers;
  /** Sizes by key. */
  queue: KeyedQueue<number>;
  /** Blobs whose marker is being written. */
  arriving: Set<Promise<void>>;
  stopped: AbortSignal;
  /** Since the last upload that succeeded. */
  failures: number;
  /** Of the blobs that wait. */
  bytes: number;
}

function pending({ arriving, queue }: Uploading): number {
  return arriving.size + queue.size();
}

function observePending(uploading: Uploading): void {
  uploading.observe.uploadQueue(pending(uploading), uploading.bytes);
}

/** Enqueues a blob that has just been written, once its marker is written too. */
function enqueueWritten(uploading: Uploading, key: string, { size, after }: { size: number; after: number }): void {
  const { markers, arriving } = uploading;
  const arrival = (markers.written(key) ? Promise.resolve() : markers.announce(key)).then(() => {
    markers.written(key);
    arriving.delete(arrival);
    enqueueLater(uploading, key, { size, after });
    observePending(uploading);
  });
  arriving.add(arrival);
  observePending(uploading);
}

/** If the process ends before then, its next start finds the marker. */
function enqueueLater(uploading: Uploading, key: string, { size, after }: { size: number; after: number }): void {
  if (after === 0) enqueue(uploading, key, size);
  else setTimeout(() => !uploading.stopped.aborted && enqueue(uploading, key, size), after).unref();
}

function enqueue(uploading: Uploading, key: string, size: number): void {
  const { queue, tier } = uploading;
  if (queue.isWaiting(key)) return;
  tier.pin(key);
  uploading.bytes += size;
  queue.add(key, size);
}

async function upload(uploading: Uploading, key: string, size: number): Promise<void> {
  const { files, remote, markers, stopped } = uploading;
  const signal = AbortSignal.any([stopped, AbortSignal.timeout(UPLOAD_TIMEOUT_MS)]);
  try {
    await uploadBlob(key, { files, remote, signal });
    if (!isWantedAgain(uploading, key)) await markers.remove(key, signal);
    uploading.failures = 0;
    uploading.bytes -= size;
  } catch (error) {
    if (stopped.aborted) return;
    if (isOciError(error, 'DIGEST_INVALID')) {
      uploading.bytes -= size;
      await drop(uploading, key, error);
    } else await postpone(uploading, { key, size }, error);
  }
}

function isWantedAgain({ markers, queue }: Uploading, key: string): boolean {
  return markers.isAnnounced(key) || queue.isWaiting(key);
}

async function postpone(uploading: Uploading, { key, size }: { key: string; size: number }, error: unknown): Promise<void> {
  const { queue, log, stopped } = uploading;
  uploading.failures++;
  log.warn({ event: 'upload-postponed', error, key, waiting: queue.size() }, 'cannot upload a blob yet; keeping it in the local tier');
  if (queue.isWaiting(key)) uploading.bytes -= size;
  else queue.add(key, size);
  const pause = backoff(uploading.failures, { baseMs: 250, capMs: MAX_PAUSE_MS });
  await delay(pause, undefined, { signal: stopped }).catch(() => undefined); // stopped
}

/** Takes a blob out of the queue that the remote store has refused for its digest: no further
 *  attempt can succeed. A damaged local copy is removed, and the next pull downloads the blob again.
 *  An intact one stays as long as the tier has room for it. */
async function drop(uploading: Uploading, key: string, error: OciError): Promise<void> {
  const { files, tier, markers, log, stopped } = uploading;
  const reading = AbortSignal.any([stopped, AbortSignal.timeout(UPLOAD_TIMEOUT_MS)]);
  const isDamaged = !(await isIntact(key, files, reading).catch(() => false));
  log.error(
    { event: 'upload-refused', error, key, isDamaged },
    'the storage rejected a blob whose bytes do not match its digest; dropping the upload',
  );
  if (isWantedAgain(uploading, key)) return;
  const signal = AbortSignal.timeout(REMOVE_TIMEOUT_MS);
  await markers.remove(key, signal).catch(() => tier.unpin(key)); // the next start tries again
  if (isDamaged) await tier.remove(key, { signal }).catch(() => undefined); // it is hashed before it is served
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
