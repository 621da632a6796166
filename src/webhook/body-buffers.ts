/** Buffers for large bodies. Each is used again: freed ones would wait for the garbage collector,
 *  and malloc would keep their memory. */
export interface BodyBuffers {
  take(): SharedArrayBuffer;
  /** Only when no thread reads it any more. */
  giveBack(buffer: SharedArrayBuffer): void;
}

/** @param size - of each, in bytes
 *  @param kept - how many are kept while they are not used */
export function createBodyBuffers({ size, kept }: { size: number; kept: number }): BodyBuffers {
  const free: SharedArrayBuffer[] = [];
  return {
    take: () => free.pop() ?? new SharedArrayBuffer(size),
    giveBack(buffer) {
      if (free.length < kept) free.push(buffer);
    },
  };
}
