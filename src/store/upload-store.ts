import type { RunningHash } from '../io/running-hash.ts';
import { bytesSource, type Store, type StoreContext, type WriteContext } from './store.ts';

/** A store that blobs can be uploaded to: besides objects of known size it accepts streams, and
 *  joins objects. Errors are those of a Store. */
export interface UploadStore extends Store {
  /** Writes the bytes of `body` under `key`, all or nothing: if `body` throws, nothing is stored,
   *  and its error is passed on. Durable when it resolves, unless it is `volatile`.
   *  @param body batches of chunks, which belong to the store: it may free their memory
   *  @returns the number of bytes */
  writeStream(key: string, body: AsyncIterable<readonly Uint8Array[]>, context: StreamContext): Promise<number>;
  /** Creates `key`, durably, from the bytes of `parts`, in this order; the parts stay. The bytes do
   *  not pass through this process if the store can avoid it. */
  compose(parts: readonly UploadPart[], key: string, context: StoreContext): Promise<void>;
  /** Writes objects durably, one after the other: none of them is visible before those ahead of it
   *  are durable. */
  writeInOrder(this: void, objects: ObjectsInOrder, context: StoreContext): Promise<void>;
  /** Reads a small object.
   *  @returns undefined: it is absent, or has more than `maxBytes` */
  readSmall(this: void, key: string, maxBytes: number, context: StoreContext): Promise<Uint8Array | undefined>;
  /** Parts shorter than this many bytes, except the last, cost a copy through this process;
   *  undefined: parts may be of any size. */
  minPartSize: number | undefined;
}

export interface StreamContext extends WriteContext {
  /** The number of bytes, if known: then the body may be sent on without being collected. */
  size?: number;
  /** Gets the bytes. */
  hash: RunningHash;
  /** Called when all bytes are hashed. If it throws, nothing is stored, and the error is passed
   *  on. */
  check?(this: void): Promise<void>;
}

export interface SmallObject {
  key: string;
  bytes: Uint8Array;
}

/** An object that `compose` creates. */
export interface ComposedObject {
  key: string;
  parts: readonly UploadPart[];
}

/** Small objects, which may follow a composed one. */
export type ObjectsInOrder = readonly [SmallObject | ComposedObject, ...SmallObject[]];

/** `writeInOrder` for stores that write each object by itself. */
export function inOrder({ write, compose }: Pick<UploadStore, 'write' | 'compose'>): UploadStore['writeInOrder'] {
  return async (objects, context) => {
    for (const object of objects) {
      if ('parts' in object) await compose(object.parts, object.key, context);
      else await write(object.key, bytesSource(object.bytes), context);
    }
  };
}

export interface UploadPart {
  key: string;
  /** Bytes. */
  size: number;
}
