import type { Body } from '../oci/registry.ts';
import { discardBody } from './body.ts';

/** Documents up to this many bytes are not counted: nearly all manifests are smaller. */
export const SMALL_DOCUMENT_BYTES = 2 ** 18;

export interface DocumentOptions {
  maxBytes: number;
  /** In bytes, if it is known. */
  size?: number | undefined;
  /** Called with a number of bytes before more than SMALL_DOCUMENT_BYTES are held, and again if
   *  they turn out not to be enough. */
  reserve?: ((bytes: number) => Promise<void>) | undefined;
}

const FIRST_BYTES = 2 ** 14;

/** Reads a document to its end, into one buffer: joining pieces at the end would take twice the
 *  memory. Returns undefined, and closes the body, if it has more than `maxBytes`.
 *  @throws what the body and `reserve` throw */
export async function readWhole(body: Body, { maxBytes, size, reserve }: DocumentOptions): Promise<Buffer | undefined> {
  const hold = async (bytes: number): Promise<Buffer> => {
    if (bytes > SMALL_DOCUMENT_BYTES) await reserve?.(bytes);
    return Buffer.allocUnsafeSlow(bytes);
  };
  if (size !== undefined && size > maxBytes) {
    await discardBody(body);
    return undefined;
  }
  let buffer: Buffer;
  try {
    buffer = await hold(size ?? FIRST_BYTES);
  } catch (error) {
    await discardBody(body);
    throw error;
  }
  let length = 0;
  for await (const chunk of body) {
    const needed = length + chunk.length;
    if (needed > maxBytes) return undefined;
    if (needed > buffer.length) {
      const larger = await hold(Math.min(maxBytes, Math.max(needed, 2 * buffer.length)));
      buffer.copy(larger, 0, 0, length);
      buffer = larger;
    }
    buffer.set(chunk, length);
    length = needed;
  }
  return length === buffer.length ? buffer : Buffer.from(buffer.subarray(0, length));
}
