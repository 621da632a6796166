/** Bytes. Reading a file in pieces of this size into reused buffers has twice the throughput of
 *  fs.createReadStream. */
export const BUFFER_SIZE = 2 ** 20;
/** Bytes of a buffer that is returned while the pool is empty. It is slower, but no reader waits
 *  until a slow one releases a buffer. */
const SPARE_SIZE = 2 ** 15;
/** Buffers of BUFFER_SIZE. They bound the memory of a server with many slow clients; the usual few
 *  clients never use them up. */
const POOL_SIZE = 64;
/** Unused buffers that a pool keeps: what remains allocated after a busy hour. */
const KEPT_FREE = 16;
/** Unused small buffers that a pool keeps. Without that, each piece would leave garbage at the
 *  speed of the network. */
const KEPT_SPARES = 384;

export interface BufferPool {
  /** The size of each of its own buffers, in bytes. */
  readonly size: number;
  /** How many buffers of its own it has at most. */
  readonly count: number;
  /** Returns a buffer of the pool's size, or a smaller one when all are in use. Its content is
   *  undefined. */
  acquire: () => Buffer;
  /** The buffer is no longer in use: the next `acquire` may return it. */
  release: (buffer: Buffer) => void;
  /** The buffer may still be in use: it leaves the pool, and the garbage collector frees it. */
  forget: (buffer: Buffer) => void;
  /** How many of the pool's own buffers are in use. */
  readonly used: number;
}

/** `count` buffers of `size` bytes. `shared`: of memory that other threads can read. */
export function createBufferPool(count: number, size = BUFFER_SIZE, { shared = false } = {}): BufferPool {
  const allocate = (size: number): Buffer => (shared ? Buffer.from(new SharedArrayBuffer(size)) : Buffer.allocUnsafeSlow(size));
  const free: Buffer[] = [];
  const freeSpares: Buffer[] = [];
  const out = new Set<Buffer>();
  const sparesOut = new Set<Buffer>();
  return {
    size,
    count,
    acquire() {
      const own = out.size < count;
      const buffer = own ? (free.pop() ?? allocate(size)) : (freeSpares.pop() ?? allocate(SPARE_SIZE));
      (own ? out : sparesOut).add(buffer);
      return buffer;
    },
    release(buffer) {
      if (out.delete(buffer) && free.length < KEPT_FREE) free.push(buffer);
      if (sparesOut.delete(buffer) && freeSpares.length < KEPT_SPARES) freeSpares.push(buffer);
    },
    forget(buffer) {
      out.delete(buffer);
      sparesOut.delete(buffer);
    },
    get used() {
      return out.size;
    },
  };
}

/** A buffer of a pool with several holders. */
export interface SharedBuffer {
  bytes: Buffer;
  /** Adds a holder. */
  hold(): void;
  /** Removes a holder; the last one returns the buffer to the pool. */
  release(): void;
  /** Removes a holder on whose behalf the kernel may still be reading: the buffer never returns to
   *  the pool. */
  forget(): void;
}

const held = new WeakMap<ArrayBufferLike, SharedBuffer>();

/** Takes a buffer from `pool`, with one holder. */
export function acquireShared(pool: BufferPool): SharedBuffer {
  const bytes = pool.acquire();
  let holders = 1;
  let forgotten = false;
  const buffer: SharedBuffer = {
    bytes,
    hold: () => void holders++,
    release() {
      if (--holders > 0 || forgotten) return;
      held.delete(bytes.buffer);
      pool.release(bytes);
    },
    forget() {
      holders--;
      if (!forgotten) pool.forget(bytes);
      forgotten = true;
    },
  };
  held.set(bytes.buffer, buffer);
  return buffer;
}

/** The shared buffer that contains `bytes`. A holder of the buffer need not copy them. Undefined:
 *  they are in no shared buffer. */
export function sharedBufferOf(bytes: Uint8Array): SharedBuffer | undefined {
  return held.get(bytes.buffer);
}

/** A copy of `bytes`, in memory that is not shared. `Uint8Array.from` takes twice as long when
 *  they are in shared memory. */
export function copyOf(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(bytes.length);
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).copy(copy);
  return copy;
}

/** For reading stored files. Shared by the whole process, so they limit its memory. */
export const fileBuffers = createBufferPool(POOL_SIZE);

/** For files that are uploaded to another store: two for each upload. They fit into a CPU's cache:
 *  larger ones were measured to cost a third more for each byte that goes to S3. */
export const sourceBuffers = createBufferPool(8, 2 ** 18);

/** For spool files, and for bytes on their way into them. Each piece of a download costs the main
 *  thread some 200 µs, whatever its size, so these buffers are large: with 256 KiB a blob was
 *  measured to cost a quarter more. There are enough for a few downloads at once; of 64 downloads
 *  at once most make do with the small ones. */
export const spoolBuffers = createBufferPool(32, 2 ** 19, { shared: true });
