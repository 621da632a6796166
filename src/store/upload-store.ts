import type { Store, StoreContext } from './store.ts';

/** A store that blobs can be uploaded to: beside objects of known size it takes streams, and joins objects. Errors are a
 *  Store's. */
export interface UploadStore extends Store {
  /** Writes what `body` yields under `key`, all or nothing: when `body` throws, nothing is stored, and its error comes
   *  through. Durable when it resolves.
   *  @param context.size the number of bytes, where it is known: then no part of the body is kept in memory
   *  @returns the number of bytes */
  writeStream(key: string, body: AsyncIterable<Uint8Array>, context: StoreContext & { size?: number }): Promise<number>;
  /** Makes `key` of the bytes of `parts`, in this order; they stay. No byte passes this process where the store can help it. */
  compose(parts: readonly UploadPart[], key: string, context: StoreContext): Promise<void>;
  /** Shorter parts than this, but for the last, cost a copy through this process. Bytes; undefined: parts may be of any size. */
  minPartSize: number | undefined;
}

export interface UploadPart {
  key: string;
  /** Bytes. */
  size: number;
}
