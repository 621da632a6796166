import { isOciError } from '../oci/error.ts';
import type { Log } from '../telemetry/log.ts';
import type { StorageOperation } from '../telemetry/registry-metrics.ts';
import { mapBody } from '../io/body.ts';
import type { Store, StoreContext } from './store.ts';
import type { UploadStore } from './upload-store.ts';

export interface StoreObserver {
  log: Log;
  /** A call failed because of the store. */
  failed(this: void, operation: StorageOperation): void;
}

/** Observes stores of one place: counts their failures, and logs when they begin to fail and when
 *  they work again. Pulls continue without the store, so the failure might otherwise go unnoticed.
 *  */
export function observeStores({ log, failed }: StoreObserver): <S extends Store>(inner: S) => S {
  let failingSince: number | undefined;

  function note(error: unknown, operation: StorageOperation, { signal }: StoreContext): void {
    // A caller that timed out may have waited for a silent store: that is a failure too.
    const late = signal.aborted && (signal.reason as Error).name === 'TimeoutError';
    if (!late && (signal.aborted || !isOciError(error, 'UNAVAILABLE'))) return;
    failed(operation);
    if (failingSince !== undefined) return;
    failingSince = Date.now();
    log.error(
      { event: 'storage-failing', error, operation },
      'calls to the storage fail; serving pulls from upstream and from local copies',
    );
  }

  function works(): void {
    if (failingSince === undefined) return;
    log.info({ event: 'storage-working', seconds: Math.round((Date.now() - failingSince) / 1000) }, 'the storage works again');
    failingSince = undefined;
  }

  function watch<T>(answer: Promise<T>, operation: StorageOperation, context: StoreContext): Promise<T> {
    return answer.then(
      (result) => {
        works();
        return result;
      },
      (error: unknown) => {
        note(error, operation, context);
        throw error;
      },
    );
  }

  return (inner) => ({
    ...inner,
    ...observedUploads(inner),
    stat: (key, context) => watch(inner.stat(key, context), 'stat', context),
    async read(key, context) {
      const content = await watch(inner.read(key, context), 'read', context);
      if (content === undefined) return undefined;
      const body = mapBody(content.body, {
        onError(error) {
          note(error, 'read', context);
          return error;
        },
      });
      return { ...content, body };
    },
    write: (key, source, context) => watch(inner.write(key, source, context), 'write', context),
    remove: (key, context) => watch(inner.remove(key, context), 'remove', context),
    async *list(prefix, context) {
      try {
        yield* inner.list(prefix, context);
        works();
      } catch (error) {
        note(error, 'list', context);
        throw error;
      }
    },
  });

  function observedUploads(inner: Store & Partial<Pick<UploadStore, 'readSmall' | 'writeInOrder'>>): Partial<UploadStore> {
    const { readSmall, writeInOrder } = inner;
    if (readSmall === undefined || writeInOrder === undefined) return {};
    return {
      readSmall: (key, maxBytes, context) => watch(readSmall(key, maxBytes, context), 'read', context),
      writeInOrder: (objects, context) => watch(writeInOrder(objects, context), 'write', context),
    };
  }
}
