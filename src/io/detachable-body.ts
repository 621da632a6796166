/** The bytes of a body that have not been read, and arrive at a socket of this process. */
export interface DetachedBytes {
  /** Bytes of the body that were read before. */
  begun: readonly Uint8Array[];
  /** A duplicate of the socket's descriptor. Only the code that gets it reads from the socket, and
   *  closes it. */
  descriptor: number;
  /** The number of bytes of the whole body, `begun` included. */
  size: number;
  /** Restarts the idle timeout of the connection. The reader calls it while bytes arrive. */
  progressed(this: void): void;
  /** Closes the connection. The reader calls it when it finds that the client has disconnected. */
  disconnected(this: void): Promise<void>;
}

/** Hands the body over to another reader, instead of iterating over it. Undefined: it must be
 *  iterated over. */
export type Detach = () => Promise<DetachedBytes | undefined>;

type Batches = AsyncIterable<readonly Uint8Array[]>;

const detaches = new WeakMap<Batches, Detach>();

/** Makes `body` readable by another thread, straight from its socket, and returns it. */
export function withDetach<B extends Batches>(body: B, detach: Detach | undefined): B {
  if (detach !== undefined) detaches.set(body, detach);
  return body;
}

/** Undefined: this body has to be iterated over. */
export function detachOf(body: Batches): Detach | undefined {
  return detaches.get(body);
}
