import type { Log } from '../../telemetry/log.ts';
import type { FilesystemStore } from '../filesystem/filesystem.ts';
import { keyOfPending, PENDING, pendingKey } from '../keys.ts';
import { bytesSource } from '../store.ts';
import type { LocalTier } from './local-tier.ts';

export interface UploadMarkersOptions {
  files: FilesystemStore;
  tier: Pick<LocalTier, 'pin' | 'unpin'>;
  log: Log;
}

/** A file for each blob of the local tier that is to be uploaded: the blob is pinned, and a restart
 *  does not forget the upload. */
export interface UploadMarkers {
  /** Marks a blob that is about to be written. */
  announce(this: void, key: string): Promise<void>;
  /** Whether the blob is announced and not enqueued yet: it is being written. */
  isAnnounced(key: string): boolean;
  /** The blob has been written. @returns false: it was not announced */
  written(key: string): boolean;
  /** Removes the mark of a blob that needs no upload any more. */
  remove(key: string, signal: AbortSignal): Promise<void>;
  /** The blobs that a former process has marked. */
  list(signal: AbortSignal): AsyncIterable<{ key: string; size: number }>;
}

const WRITE_TIMEOUT_MS = 30_000;

export function createUploadMarkers({ files, tier, log }: UploadMarkersOptions): UploadMarkers {
  const announced = new Set<string>();
  return {
    async announce(key) {
      tier.pin(key);
      announced.add(key);
      try {
        await files.write(pendingKey(key), bytesSource(new Uint8Array()), { signal: AbortSignal.timeout(WRITE_TIMEOUT_MS) });
      } catch (error) {
        log.warn(
          { event: 'upload-not-announced', error, key },
          'cannot write the marker of a pending upload: a restart would forget the upload',
        );
      }
    },
    isAnnounced: (key) => announced.has(key),
    written: (key) => announced.delete(key),
    async remove(key, signal) {
      await files.remove(pendingKey(key), { signal });
      tier.unpin(key);
    },
    async *list(signal) {
      for await (const { key: marker } of files.list(PENDING, { signal })) {
        const key = keyOfPending(marker);
        const found = await files.stat(key, { signal });
        if (found === undefined) await files.remove(marker, { signal });
        else yield { key, size: found.size };
      }
    },
  };
}
