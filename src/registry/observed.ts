import { isAbsent, isOciError } from '../oci/error.ts';
import type { Context, Registry } from '../oci/registry.ts';
import type { ReadKind } from '../telemetry/registry-metrics.ts';

/** Passes reads on to `inner`, and calls `failed` for each read that it could not answer. A 404 is
 *  an answer, and so is a range outside the content; clients that have disconnected do not
 *  count. */
export function observed(inner: Registry, failed: (kind: ReadKind) => void): Registry {
  function note(error: unknown, kind: ReadKind, { signal }: Context): void {
    if (!signal.aborted && !isAbsent(error) && !isOciError(error, 'RANGE_INVALID')) failed(kind);
  }
  function watch<T>(answer: Promise<T>, kind: ReadKind, context: Context): Promise<T> {
    answer.catch((error: unknown) => note(error, kind, context));
    return answer;
  }
  return {
    resolve: (repository, reference, context) => watch(inner.resolve(repository, reference, context), 'manifest', context),
    manifest: (repository, reference, context) => watch(inner.manifest(repository, reference, context), 'manifest', context),
    stat: (repository, digest, context) => watch(inner.stat(repository, digest, context), 'blob', context),
    blob: (repository, digest, context) => watch(inner.blob(repository, digest, context), 'blob', context),
    async *tags(repository, context) {
      try {
        yield* inner.tags(repository, context);
      } catch (error) {
        note(error, 'tags', context);
        throw error;
      }
    },
    referrers: (repository, digest, context) => watch(inner.referrers(repository, digest, context), 'referrers', context),
  };
}
