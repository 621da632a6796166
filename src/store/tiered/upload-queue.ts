import { setTimeout as delay } from 'node:timers/promises';
import { agrees, createDigestHash } from '../../oci/digest.ts';
import { isOciError, type OciError } from '../../oci/error.ts';
import type { Log } from '../../telemetry/log.ts';
import type { FilesystemStore } from '../filesystem/filesystem.ts';
import type { LocalTier } from './local-tier.ts';
import { keyOfPending, parseBlobKey, PENDING, pendingKey } from '../keys.ts';
import { bytesSource, type Store } from '../store.ts';
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

/** Uploads blobs from the local tier to the remote store. A blob is not evicted before it is
 *  uploaded. During an outage it waits, if necessary through a restart (promise 11). */
export async function createUploads({ files, tier, remote, log, observe }: UploadsOptions): Promise<Uploads> {
  const waiting = new Map<string, number>();
  const running = new Set<Promise<void>>();
  /** Blobs whose marker is being written. */
  const arriving = new Set<Promise<void>>();
  /** Keys that are announced and not enqueued yet: their blobs are being written. */
  const announced = new Set<string>();
  const uploading = new Set<string>();
  const stop = new AbortController();
  let failures = 0;
  let bytes = 0;

  async function upload(key: string, size: number): Promise<void> {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(3_600_000)]);
    try {
      const source = await files.source(key, { signal });
      // An object of another size is damaged, for example the half of an upload that was cut: it is
      // replaced.
      if (source !== undefined && (await remote.stat(key, { signal }))?.size !== source.size) await remote.write(key, source, { signal });
      if (!announced.has(key) && !waiting.has(key)) {
        await files.remove(pendingKey(key), { signal });
        tier.unpin(key);
      }
      failures = 0;
      bytes -= size;
    } catch (error) {
      if (stop.signal.aborted) return;
      if (isOciError(error, 'DIGEST_INVALID')) {
        bytes -= size;
        await drop(key, error);
        return;
      }
      failures++;
      log.warn(
        { event: 'upload-postponed', error, key, waiting: waiting.size + running.size },
        'cannot upload a blob yet; keeping it in the local tier',
      );
      if (waiting.has(key)) bytes -= size;
      else waiting.set(key, size);
      await delay(backoff(failures, { baseMs: 250, capMs: MAX_PAUSE_MS }), undefined, { signal: stop.signal }).catch(() => undefined); // stopped
    }
  }

  /** Takes a blob out of the queue that the remote store has refused for its digest: no further
   *  attempt can succeed. A damaged local copy is removed, and the next pull downloads the blob
   *  again. An intact one stays as long as the tier has room for it. */
  async function drop(key: string, error: OciError): Promise<void> {
    const isDamaged = !(await isIntact(key).catch(() => false));
    log.error(
      { event: 'upload-refused', error, key, isDamaged },
      'the storage rejected a blob whose bytes do not match its digest; dropping the upload',
    );
    if (announced.has(key) || waiting.has(key)) return;
    const signal = AbortSignal.timeout(30_000);
    await files.remove(pendingKey(key), { signal }).catch(() => undefined); // the next start tries again
    tier.unpin(key);
    if (isDamaged) await tier.remove(key, { signal }).catch(() => undefined); // it is hashed before it is served
  }

  async function isIntact(key: string): Promise<boolean> {
    const digest = parseBlobKey(key);
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(3_600_000)]);
    const source = await files.source(key, { signal });
    if (digest === undefined || source === undefined) return false;
    const hash = createDigestHash(digest);
    for await (const chunk of await source.open({ signal })) hash.update(chunk);
    return agrees(hash, digest);
  }

  const pending = () => arriving.size + waiting.size + running.size;

  function pump(): void {
    observe.uploadQueue(pending(), bytes);
    while (running.size < PARALLEL && !stop.signal.aborted) {
      const [next] = waiting;
      if (next === undefined) return;
      waiting.delete(next[0]);
      uploading.add(next[0]);
      const task = upload(...next).finally(() => {
        uploading.delete(next[0]);
        running.delete(task);
        pump();
      });
      running.add(task);
    }
  }

  function enqueue(key: string, size: number): void {
    if (waiting.has(key)) return;
    tier.pin(key);
    waiting.set(key, size);
    bytes += size;
    pump();
  }

  const startSignal = AbortSignal.timeout(60_000);
  for await (const { key } of files.list(PENDING, { signal: startSignal })) {
    const blob = keyOfPending(key);
    const found = await files.stat(blob, { signal: startSignal });
    if (found === undefined) await files.remove(key, { signal: startSignal });
    else enqueue(blob, found.size);
  }

  /** If the process ends before then, its next start finds the marker. */
  function enqueueLater(key: string, size: number, after: number): void {
    if (after === 0) enqueue(key, size);
    else setTimeout(() => !stop.signal.aborted && enqueue(key, size), after).unref();
  }

  async function announce(key: string): Promise<void> {
    tier.pin(key);
    announced.add(key);
    try {
      await files.write(pendingKey(key), bytesSource(new Uint8Array()), { signal: AbortSignal.timeout(30_000) });
    } catch (error) {
      log.warn(
        { event: 'upload-not-announced', error, key },
        'cannot write the marker of a pending upload: a restart would forget the upload',
      );
    }
  }

  return {
    announce,
    async withdraw(key) {
      announced.delete(key);
      if (waiting.has(key) || uploading.has(key)) return;
      tier.unpin(key);
      await files.remove(pendingKey(key), { signal: AbortSignal.timeout(30_000) });
    },
    enqueue(key, size, after = 0) {
      const arrival = (announced.delete(key) ? Promise.resolve() : announce(key)).then(() => {
        announced.delete(key);
        arriving.delete(arrival);
        enqueueLater(key, size, after);
        pump();
      });
      arriving.add(arrival);
      observe.uploadQueue(pending(), bytes);
    },
    pending,
    async close(signal) {
      signal.addEventListener('abort', () => stop.abort(), { once: true });
      await Promise.all(arriving);
      while (running.size > 0 && failures === 0 && !signal.aborted) await Promise.race(running);
      stop.abort();
      await Promise.all(running);
    },
  };
}
