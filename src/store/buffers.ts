/** Bytes. Reading a file in pieces of this size into buffers used again has twice the throughput of fs.createReadStream. */
export const BUFFER_SIZE = 2 ** 20;
/** What an empty pool gives: slower, but nobody waits for a slow reader to hand a buffer back. */
const SPARE_SIZE = 2 ** 16;
/** Of BUFFER_SIZE. A server of 64 slow clients stays within its memory, and the usual few never notice. */
const POOL_SIZE = 64;
/** Of those that nobody uses: what stays after a busy hour. */
const KEPT_FREE = 16;

export interface BufferPool {
  /** A buffer of the pool's size, or a smaller one when all are out. Its content is whatever it was. */
  acquire: () => Buffer;
  /** Nobody looks at it any more: the next `acquire` may give it out. */
  release: (buffer: Buffer) => void;
  /** Somebody may still look at it: it leaves the pool and goes when nobody does. */
  forget: (buffer: Buffer) => void;
  /** How many of the pool's own are out. */
  readonly used: number;
}

export function createBufferPool(count: number, size = BUFFER_SIZE): BufferPool {
  const free: Buffer[] = [];
  const out = new Set<Buffer>();
  return {
    acquire() {
      if (out.size >= count) return Buffer.allocUnsafeSlow(SPARE_SIZE);
      const buffer = free.pop() ?? Buffer.allocUnsafeSlow(size);
      out.add(buffer);
      return buffer;
    },
    release(buffer) {
      if (out.delete(buffer) && free.length < KEPT_FREE) free.push(buffer);
    },
    forget(buffer) {
      out.delete(buffer);
    },
    get used() {
      return out.size;
    },
  };
}

const pool = createBufferPool(POOL_SIZE);

/** The buffers for stored files of the whole process: what its memory is bounded by. */
export const { acquire: acquireBuffer, release: releaseBuffer, forget: forgetBuffer } = pool;

/** Those for files that still grow. They keep up with a network, not with a page cache: a quarter of the size does, and of 64
 *  that are followed at once most get along with the small ones. */
export const spoolBuffers = createBufferPool(32, 2 ** 18);
