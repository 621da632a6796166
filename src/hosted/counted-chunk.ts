import { OciError } from '../oci/error.ts';
import type { Chunk } from '../oci/push-registry.ts';

interface Counting {
  start: number;
  /** Bytes that the quota leaves for the whole upload. */
  room: number;
  maxSize: number;
}

/** The batches of a chunk.
 *  @throws OciError SIZE_INVALID: the length differs from the announced one, or the blob is too
 *  large; DENIED: no room for it */
export async function* counted({ body, length }: Chunk, { start, room, maxSize }: Counting): AsyncGenerator<readonly Uint8Array[]> {
  let size = 0;
  for await (const batch of body) {
    for (const bytes of batch) size += bytes.length;
    if (length !== undefined && size > length) throw new OciError('SIZE_INVALID', `the chunk has more than the ${length} bytes announced`);
    if (start + size > maxSize) throw new OciError('SIZE_INVALID', `the blob has more than the ${maxSize} bytes allowed`);
    if (start + size > room) throw new OciError('DENIED', `the quota of the repository leaves ${room} bytes, and the blob has more`);
    yield batch;
  }
  if (length !== undefined && size < length) throw new OciError('SIZE_INVALID', `the chunk has ${size} of the ${length} bytes announced`);
}
