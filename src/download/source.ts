import type { Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import { discardBody, mapBody } from '../io/body.ts';
import type { Log } from '../telemetry/log.ts';

export type SourceName = 'storage' | 'replica' | 'upstream';

/** Whether an answer of this kind of source proves that the repository of the request may serve the
 *  blob: replicas and upstreams are asked under the repository's name, and refuse a blob that it
 *  does not have. The storage holds the blobs of all repositories, so its answer proves nothing. */
export const PROVES_ACCESS: Readonly<Record<SourceName, boolean>> = { storage: false, replica: true, upstream: true };

/** One place that a blob may come from. */
export interface BlobSource {
  readonly name: SourceName;
  /** Opens the blob, or a part of it. A source that does not support ranges returns the whole blob
   *  (`range` undefined).
   *  @throws OciError BLOB_UNKNOWN: the source does not have the blob; others as `Registry.blob`
   *  does */
  open(range: ByteRange | undefined, signal: AbortSignal): Promise<Blob>;
}

/** The sources of one download, which reads from the first one that works. */
export interface SourceList {
  /** Opens the blob at the current source. A source that fails, at once or in the middle of a body,
   *  is not used again; only the last one is retried.
   *  @throws as the last source does; OciError UNAVAILABLE: it has a blob of another size */
  open(range: ByteRange | undefined, signal: AbortSignal): Promise<Blob>;
  current(this: void): SourceName;
  /** Resolves to the current source: at once if that source proves access, else when it has
   *  answered. Never rejects. */
  located: Promise<SourceName>;
  /** The sources that have answered with bytes. */
  used: ReadonlySet<SourceName>;
  /** The last source has a blob of another size than expected. */
  hasWrongSize(this: void): boolean;
  /** Resolves `located` when the download fails before a source has answered. */
  giveUp(this: void): void;
}

export interface SourceListOptions {
  digest: Digest;
  /** In order of preference, at least one. */
  sources: readonly BlobSource[];
  /** The size of the blob in bytes, if a manifest states it: a source that reports another size has
   *  a different blob. */
  expectedSize: number | undefined;
  log: Log;
}

export function createSourceList({ digest, sources, expectedSize, log }: SourceListOptions): SourceList {
  const used = new Set<SourceName>();
  const located = Promise.withResolvers<SourceName>();
  let index = 0;
  let wrongSize = false;
  const at = (position: number): BlobSource => sources[Math.min(position, sources.length - 1)]!;
  const isLast = (position: number): boolean => position >= sources.length - 1;
  const locate = (): void => {
    if (PROVES_ACCESS[at(index).name]) located.resolve(at(index).name);
  };
  locate();

  function leave(position: number): void {
    if (index !== position || isLast(position)) return;
    index++;
    locate();
  }

  return {
    current: () => at(index).name,
    located: located.promise,
    used,
    hasWrongSize: () => wrongSize && isLast(index),
    giveUp: () => located.resolve(at(index).name),
    async open(range, signal) {
      for (;;) {
        const position = index;
        const source = at(position);
        try {
          const blob = await source.open(range, signal);
          if (expectedSize !== undefined && blob.size !== undefined && blob.size !== expectedSize) {
            wrongSize = true;
            throw await refuseSize(source, { digest, blob, expectedSize });
          }
          used.add(source.name);
          located.resolve(source.name);
          return { ...blob, body: mapBody(blob.body, { onError: (error) => (leave(position), error) }) };
        } catch (error) {
          signal.throwIfAborted();
          const outside = source.name === 'storage' && isOciError(error, 'RANGE_INVALID'); // storage knows the size
          if (isLast(position) || outside) throw error;
          log[isAbsent(error) ? 'debug' : 'warn'](
            { event: 'blob-source-failed', digest, source: source.name, error },
            'a source of a blob failed; trying the next one',
          );
          leave(position);
        }
      }
    },
  };
}

/** Closes a blob of another size than expected. @returns the error to throw */
async function refuseSize(
  { name }: BlobSource,
  { digest, blob, expectedSize }: { digest: Digest; blob: Blob; expectedSize: number },
): Promise<OciError> {
  await discardBody(blob.body);
  return new OciError('UNAVAILABLE', `${name} has ${blob.size} bytes for ${digest}, which has ${expectedSize}`, {
    origin: name === 'storage' ? 'storage' : 'upstream',
  });
}
