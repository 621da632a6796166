/** Smaller ones come from a pool that other buffers share, or are not worth the call. */
const LEAST = 16 * 1024;

/** Frees the memory of a buffer that is no longer used, now instead of at the next garbage
 *  collection. V8 counts such memory, and marks the whole heap again for each few dozen MB of it:
 *  bodies that Node's HTTP parser copies into fresh buffers cost more for that than for all else.
 *  The buffer is empty afterwards. */
export function freeMemory({ buffer, length }: Uint8Array): void {
  if (length >= LEAST && length === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
