import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../async/backoff.ts';
import { createSourceList, type BlobSource } from '../download/source.ts';
import { mapBody, skipBytes } from '../io/body.ts';
import { createExpiringCache } from '../io/expiring-cache.ts';
import { resumingBody } from '../io/resuming-body.ts';
import type { Digest } from '../oci/digest.ts';
import { isAbsent } from '../oci/error.ts';
import type { Blob } from '../oci/registry.ts';
import type { Log } from '../telemetry/log.ts';

/** Passes blobs on from S3 without reading their bytes, where the system allows it. */
export interface Passing {
  /** @param sources S3, and others for when it fails. @throws nothing; the body throws as the last
   *  source does */
  open(this: void, blob: { digest: Digest; size: number }, sources: readonly BlobSource[], signal: AbortSignal): Blob;
}

/** A blob that is requested again so soon, in ms, had the wrong bytes, or was removed. */
const AGAIN_MS = 900_000;
const MAX_REMEMBERED = 1000;
const MAX_FAILURES = 6;

/** Nothing here verifies the bytes; the container runtime does. If they were wrong, it requests the
 *  blob again, and gets it from the registry, which verifies what it reads from S3. */
export function createPassing(log: Log): Passing {
  const passed = createExpiringCache<Digest, 'once' | 'again'>({ max: MAX_REMEMBERED, ttl: AGAIN_MS });

  return {
    open({ digest, size }, sources, signal) {
      const isSuspect = passed.get(digest) === 'once';
      const list = createSourceList({ digest, sources: isSuspect ? sources.slice(1) : sources, expectedSize: size, log });
      let failures = 0;
      let failedAt = 0;

      async function open(position: number): Promise<Blob['body']> {
        const { range, body } = await list.open(position === 0 ? undefined : { start: position }, signal);
        return skipBytes(body, position - (range?.start ?? 0));
      }

      async function failed(cause: unknown, position: number): Promise<void> {
        failures = position > failedAt ? 1 : failures + 1;
        failedAt = position;
        if (signal.aborted || isAbsent(cause) || failures > MAX_FAILURES) throw cause;
        await delay(backoff(failures, { baseMs: 100, capMs: 5000, jitter: 'full' }), undefined, { signal });
      }

      const body = resumingBody({ start: 0, open, failed, signal });
      const onEnd = (): void => void passed.set(digest, isSuspect ? 'again' : (passed.get(digest) ?? 'once'));
      return { digest, size, range: undefined, body: mapBody(body, { onEnd }) };
    },
  };
}
