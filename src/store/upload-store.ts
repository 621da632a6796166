import type { Store, StoreContext } from './store.ts';

/** A store that blobs can be uploaded to: besides objects of known size it accepts streams, and
 *  joins objects. Errors are those of a Store. */
export interface UploadStore extends Store {
  /** Writes the bytes of `body` under `key`, all or nothing: if `body` throws, nothing is stored,
   *  and its error is passed on. Durable when it resolves.
   *  @param context.size the number of bytes, if known: then no part of the body is kept in memory
   *  @returns the number of bytes */
  writeStream(key: string, body: AsyncIterable<Uint8Array>, context: StoreContext & { size?: number }): Promise<number>;
  /** Creates `key` from the bytes of `parts`, in this order; the parts stay. The bytes do not pass
   *  through this process if the store can avoid it. */
  compose(parts: readonly UploadPart[], key: string, context: StoreContext): Promise<void>;
  /** Parts shorter than this many bytes, except the last, cost a copy through this process;
   *  undefined: parts may be of any size. */
  minPartSize: number | undefined;
}

export interface UploadPart {
  key: string;
  /** Bytes. */
  size: number;
}
