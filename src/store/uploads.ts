import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../telemetry/log.ts';
import type { FilesystemStore } from './filesystem.ts';
import type { LocalTier } from './local-tier.ts';
import { bytesSource, type Store } from './store.ts';

export interface UploadsOptions {
  files: FilesystemStore;
  tier: Pick<LocalTier, 'pin' | 'unpin'>;
  remote: Store;
  log: Log;
  observe: { uploadQueue(blobs: number, bytes: number): void };
}
export interface Uploads {
  /** What is in the local tier under `key` goes to the remote store, as soon as it can, unless it is there already; `after` so many ms, while
   *  somebody else may store it. */
  enqueue(key: string, size: number, after?: number): void;
  pending(): number;
  /** Waits for what can be stored now, while `signal` allows. */
  close(signal: AbortSignal): Promise<void>;
}

const PARALLEL = 3;
const MAX_PAUSE = 5000;
/** Beside each blob that the remote store does not have yet: an empty object, which survives the process. */
const markerKey = (key: string) => key.replace('v1/blobs/', 'v1/pending/');

/** Carries blobs from the local tier to the remote store. They cannot be evicted before, and an outage only makes them wait,
 *  over a restart too (DESIGN promise 11). */
export async function createUploads({ files, tier, remote, log, observe }: UploadsOptions): Promise<Uploads> {
  const waiting = new Map<string, number>();
  const running = new Set<Promise<void>>();
  /** Those whose marker is being written. */
  const arriving = new Set<Promise<void>>();
  const stop = new AbortController();
  let failures = 0;
  let bytes = 0;

  async function upload(key: string, size: number): Promise<void> {
    const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(3_600_000)]);
    try {
      const source = await files.source(key, { signal });
      if (source !== undefined && (await remote.stat(key, { signal })) === undefined) await remote.write(key, source, { signal });
      await files.remove(markerKey(key), { signal });
      failures = 0;
      bytes -= size;
      tier.unpin(key);
    } catch (error) {
      if (stop.signal.aborted) return;
      failures++;
      log.warn({ error, key, waiting: waiting.size + running.size }, 'a blob cannot be stored yet; it stays in the local tier');
      waiting.set(key, size);
      await delay(Math.min(250 * 2 ** failures, MAX_PAUSE), undefined, { signal: stop.signal }).catch(() => undefined); // stopped
    }
  }

  const pending = () => arriving.size + waiting.size + running.size;

  function pump(): void {
    observe.uploadQueue(pending(), bytes);
    while (running.size < PARALLEL && !stop.signal.aborted) {
      const [next] = waiting;
      if (next === undefined) return;
      waiting.delete(next[0]);
      const task = upload(...next).finally(() => {
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
  for await (const { key } of files.list('v1/pending/', { signal: startSignal })) {
    const blob = key.replace('v1/pending/', 'v1/blobs/');
    const found = await files.stat(blob, { signal: startSignal });
    if (found === undefined) await files.remove(key, { signal: startSignal });
    else enqueue(blob, found.size);
  }

  /** A process that ends before then finds the marker at its next start. */
  function enqueueLater(key: string, size: number, after: number): void {
    if (after === 0) enqueue(key, size);
    else setTimeout(() => !stop.signal.aborted && enqueue(key, size), after).unref();
  }

  return {
    enqueue(key, size, after = 0) {
      tier.pin(key);
      const arrival = files
        .write(markerKey(key), bytesSource(new Uint8Array()), { signal: AbortSignal.timeout(30_000) })
        .catch((error: unknown) => log.warn({ error, key }, 'a blob that is not stored yet would be forgotten by a restart'))
        .then(() => {
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
