import { statfs } from 'node:fs/promises';
import type { TrafficOptions } from '../../console/handlers/traffic.ts';
import type { RegistryConfig } from '../../config/schema.ts';
import type { Observation } from './observation.ts';
import type { Storage } from './storage.ts';

/** The state of the store and the local tier, for the console. */
export function describeStorage(
  { storage: configured, local, cache }: Pick<RegistryConfig, 'storage' | 'local' | 'cache'>,
  { kind }: Pick<Storage, 'kind'>,
  observation: Observation,
): Pick<TrafficOptions, 'store' | 'localTier'> {
  const directory = configured.filesystem?.directory ?? './data';
  return {
    store: {
      kind,
      where: configured.s3?.bucket ?? directory,
      async limit() {
        if (cache.maxSize > 0) return cache.maxSize;
        if (kind === 's3') return null;
        const { blocks, bsize } = await statfs(directory);
        return blocks * bsize; // of the volume
      },
    },
    localTier() {
      if (kind === 'filesystem') return null;
      const { waiting, localBytes } = observation;
      return { bytes: localBytes, maxBytes: local.maxSize, waitingBlobs: waiting.blobs, waitingBytes: waiting.bytes };
    },
  };
}
