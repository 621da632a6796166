/** Bytes. Reading a file in pieces of this size into buffers used again has twice the throughput of fs.createReadStream. */
export const BUFFER_SIZE = 2 ** 20;
/** What an empty pool gives: slower, but nobody waits for a slow reader to hand a buffer back. */
const SPARE_SIZE = 2 ** 15;
/** Of BUFFER_SIZE. A server of 64 slow clients stays within its memory, and the usual few never notice. */
const POOL_SIZE = 64;
/** Of those that nobody uses: what stays after a busy hour. */
const KEPT_FREE = 16;
/** Small ones are kept too: thrown away after each piece, they would be garbage as fast as the network is. */
const KEPT_SPARES = 384;

export interface BufferPool {
  /** Of its own buffers, in bytes. */
  readonly size: number;
  /** A buffer of the pool's size, or a smaller one when all are out. Its content is whatever it was. */
  acquire: () => Buffer;
  /** Nobody looks at it any more: the next `acquire` may give it out. */
  release: (buffer: Buffer) => void;
  /** Somebody may still look at it: it leaves the pool and goes when nobody does. */
  forget: (buffer: Buffer) => void;
  /** How many of the pool's own are out. */
  readonly used: number;
}

/** `count` buffers of `size` bytes; `shared`: of memory that other threads may look at. */
export function createBufferPool(count: number, size = BUFFER_SIZE, { shared = false } = {}): BufferPool {
  const allocate = (size: number): Buffer => (shared ? Buffer.from(new SharedArrayBuffer(size)) : Buffer.allocUnsafeSlow(size));
  const free: Buffer[] = [];
  const freeSpares: Buffer[] = [];
  const out = new Set<Buffer>();
  const sparesOut = new Set<Buffer>();
  return {
    size,
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

/** A buffer of a pool that several look at. */
export interface SharedBuffer {
  bytes: Buffer;
  /** One more does. */
  hold(): void;
  /** One fewer does; after the last one it goes back to the pool. */
  release(): void;
  /** One fewer, on whose behalf the kernel may still read it: it goes when nobody does, and not back to the pool. */
  forget(): void;
}

/** Has one holder. */
export function acquireShared(pool: BufferPool): SharedBuffer {
  const bytes = pool.acquire();
  let holders = 1;
  let forgotten = false;
  return {
    bytes,
    hold: () => void holders++,
    release() {
      if (--holders === 0 && !forgotten) pool.release(bytes);
    },
    forget() {
      holders--;
      if (!forgotten) pool.forget(bytes);
      forgotten = true;
    },
  };
}

/** The buffers for stored files of the whole process: what its memory is bounded by. */
export const fileBuffers = createBufferPool(POOL_SIZE);

/** Those for files on their way to another store: two of each that is stored at a time. They stay in a CPU's cache: larger ones were measured to
 *  cost a third more for each byte that goes to S3. */
export const sourceBuffers = createBufferPool(8, 2 ** 18);

/** Those for files that still grow, and for what is on its way into them. Each crossing to the thread pool was measured to cost
 *  60 to 130 µs of the main thread, so they are not small, and enough for a few files at once: four that are read from S3 by the small ones
 *  were measured to cost half as much again. Of 64 files that are followed at once most get along with the small ones. */
export const spoolBuffers = createBufferPool(32, 2 ** 18, { shared: true });
