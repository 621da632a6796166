import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../../telemetry/log.ts';
import type { FilesystemStore } from '../filesystem/filesystem.ts';
import type { LocalTier } from './local-tier.ts';
import { keyOfPending, PENDING, pendingKey } from '../keys.ts';
import { bytesSource, type Store } from '../store.ts';
import { backoff } from '../../async/backoff.ts';

export interface UploadsOptions {
  files: FilesystemStore;
  tier: Pick<LocalTier, 'pin' | 'unpin'>;
  remote: Store;
  log: Log;
  observe: { uploadQueue(blobs: number, bytes: number): void };
}
export interface Uploads {
  /** What will be in the local tier under `key` is to be enqueued then: it is not evicted, and a restart does not forget it. */
  announce(key: string): Promise<void>;
  /** It will not be there after all. */
  withdraw(key: string): Promise<void>;
  /** What is in the local tier under `key` goes to the remote store, as soon as it can, unless it is there already; `after` so many ms, while
   *  somebody else may store it. */
  enqueue(key: string, size: number, after?: number): void;
  pending(): number;
  /** Waits for what can be stored now, while `signal` allows. */
  close(signal: AbortSignal): Promise<void>;
}

const PARALLEL = 3;
const MAX_PAUSE = 5000;

/** Carries blobs from the local tier to the remote store. They cannot be evicted before, and an outage only makes them wait,
 *  over a restart too (promise 11). */
export async function createUploads({ files, tier, remote, log, observe }: UploadsOptions): Promise<Uploads> {
  const waiting = new Map<string, number>();
  const running = new Set<Promise<void>>();
  /** Those whose marker is being written. */
  const arriving = new Set<Promise<void>>();
  /** Those whose blob is being written. */
  const announced = new Set<string>();
  const uploading = new Set<string>();
  const stop = new AbortController();
  let failures = 0;
  let bytes = 0;

  async function upload(key: string, size: number): Promise<void> {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(3_600_000)]);
    try {
      const source = await files.source(key, { signal });
      // One of another size is half of it, whatever put it there.
      if (source !== undefined && (await remote.stat(key, { signal }))?.size !== source.size) await remote.write(key, source, { signal });
      if (!announced.has(key) && !waiting.has(key)) {
        await files.remove(pendingKey(key), { signal });
        tier.unpin(key);
      }
      failures = 0;
      bytes -= size;
    } catch (error) {
      if (stop.signal.aborted) return;
      failures++;
      log.warn(
        { event: 'upload-postponed', error, key, waiting: waiting.size + running.size },
        'a blob cannot be stored yet; it stays in the local tier',
      );
      if (waiting.has(key)) bytes -= size;
      else waiting.set(key, size);
      await delay(backoff(failures, { baseMs: 250, capMs: MAX_PAUSE }), undefined, { signal: stop.signal }).catch(() => undefined); // stopped
    }
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

  /** A process that ends before then finds the marker at its next start. */
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
      log.warn({ event: 'upload-not-announced', error, key }, 'a blob that is not stored yet would be forgotten by a restart');
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
