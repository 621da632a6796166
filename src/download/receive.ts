import { OciError } from '../oci/error.ts';
import type { ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';
import { discardBody } from '../io/body.ts';
import type { Segment } from './segments.ts';
import { createCoalescingWriter } from './spool/coalescing-writer.ts';
import type { SharedBuffer } from '../io/buffers.ts';
import type { Speed } from './speed.ts';
import type { DownloadState } from './state.ts';

/** The range to request for a segment; undefined: the whole blob. */
export function rangeOf({ position, end }: Segment, { size = Infinity }: { size?: number | undefined }): ByteRange | undefined {
  if (position === 0 && end === size) return undefined;
  return end === Infinity ? { start: position } : { start: position, end: end - 1 };
}

/** Writes the bytes of a segment from `blob` to the spool, until the segment ends. `written` is
 *  called after each write.
 *  @throws OciError UNAVAILABLE (the answer ended early), SIZE_INVALID (the blob is too large);
 *  what the body throws */
export async function receive(state: DownloadState, { segment, blob, speed, written }: Received): Promise<void> {
  const writer = createCoalescingWriter(segment.position, state.chunks, {
    write: (bytes, buffer) => writeSegment(state, segment, { bytes, buffer }),
    written,
  });
  let at = blob.range?.start ?? 0;
  try {
    for await (const chunk of blob.body) {
      const offset = at;
      at += chunk.length;
      speed.arrived(chunk.length);
      const from = writer.position();
      if (from >= segment.end || state.spoolFull) break;
      if (at <= from) continue;
      const useful = chunk.subarray(from - offset, Math.min(chunk.length, segment.end - offset));
      state.growTo(from + useful.length);
      if (!state.spoolFull) await writer.take(useful);
      if (state.spoolFull || from + useful.length >= segment.end) break;
    }
  } finally {
    await writer.end();
  }
  if (state.spoolFull) return;
  if (state.size === undefined) return state.learnSize(segment.position);
  const promised = (blob.range?.end ?? Infinity) + 1;
  if (segment.position < Math.min(segment.end, promised)) {
    throw new OciError('UNAVAILABLE', `upstream ended ${state.digest} early`, { origin: 'upstream' });
  }
}

export interface Received {
  segment: Segment;
  blob: Blob;
  speed: Speed;
  written(this: void): void;
}

/** @returns how many of the bytes are in the spool: those that the segment still needs */
async function writeSegment(
  state: DownloadState,
  segment: Segment,
  { bytes, buffer }: { bytes: Uint8Array; buffer: SharedBuffer },
): Promise<number> {
  const from = segment.reach;
  const chunk = bytes.subarray(0, Math.max(0, segment.end - from));
  if (state.spoolFull || chunk.length === 0) return 0;
  segment.reach = from + chunk.length;
  if (!(await state.write(chunk, buffer, from)) || state.spoolFull) return 0;
  segment.position = from + chunk.length;
  return chunk.length;
}

/** Takes the blob's size from an answer, and closes the answer's body if it contradicts the known
 *  size.
 *  @throws OciError */
export async function learnSize(state: DownloadState, blob: Blob): Promise<void> {
  try {
    if (blob.size !== undefined) state.learnSize(blob.size);
  } catch (error) {
    await discardBody(blob.body);
    throw error;
  }
}
