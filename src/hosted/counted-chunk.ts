import { detachOf, withDetach } from '../io/detachable-body.ts';
import { OciError } from '../oci/error.ts';
import type { Chunk } from '../oci/push-registry.ts';
import type { Room } from './quota.ts';

interface Counting {
  start: number;
  /** What the quota leaves for the whole upload. */
  room: Room;
  maxSize: number;
}

/** The batches of a chunk, of which nothing is read if its length shows that there is no room for it.
 *  @throws OciError SIZE_INVALID: the length differs from the announced one, or the blob is too
 *  large; DENIED: no room for it */
export function counted(chunk: Chunk, counting: Counting): AsyncIterable<readonly Uint8Array[]> {
  if (chunk.length === undefined) return count(chunk, counting);
  checkSize(chunk.length, counting);
  return withDetach(count(chunk, counting), detachOf(chunk.body));
}

async function* count({ body, length }: Chunk, counting: Counting): AsyncGenerator<readonly Uint8Array[]> {
  let size = 0;
  for await (const batch of body) {
    for (const bytes of batch) size += bytes.length;
    if (length !== undefined && size > length) throw new OciError('SIZE_INVALID', `the chunk has more than the ${length} bytes announced`);
    checkSize(size, counting);
    yield batch;
  }
  if (length !== undefined && size < length) throw new OciError('SIZE_INVALID', `the chunk has ${size} of the ${length} bytes announced`);
}

function checkSize(size: number, { start, room, maxSize }: Counting): void {
  if (start + size > maxSize) throw new OciError('SIZE_INVALID', `the blob has more than the ${maxSize} bytes allowed`);
  if (start + size > room.bytes) throw new OciError('DENIED', `${room.state}: the blob does not fit`);
}
