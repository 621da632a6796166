import type { ServerResponse } from 'node:http';
import { SMALL_DOCUMENT_BYTES } from '../io/document.ts';
import { OciError } from '../oci/error.ts';

/** Limits the large documents that are held in memory while they are sent. A document that several
 *  clients receive at the same time counts once. */
export interface HeldDocuments {
  /** Counts `bytes` until `response` is closed.
   *  @returns false if too many bytes are held already: send the copy in the file instead */
  hold(this: void, bytes: Uint8Array, response: ServerResponse): boolean;
  /** As `hold`, up to a higher limit, for documents that are in memory only.
   *  @throws OciError TOOMANYREQUESTS: too many bytes are held already */
  require(this: void, bytes: Uint8Array, response: ServerResponse): void;
}

/** The limit in bytes for documents that also exist in files. */
const MAX_HELD_BYTES = 16 * 2 ** 20;
/** The limit in bytes together with documents in memory only: four of the longest tag lists. */
const MAX_REQUIRED_BYTES = 128 * 2 ** 20;

export function createHeldDocuments(): HeldDocuments {
  const holders = new Map<Uint8Array, number>();
  let held = 0;

  function hold(bytes: Uint8Array, response: ServerResponse, limit: number): boolean {
    if (bytes.length <= SMALL_DOCUMENT_BYTES || response.closed) return true;
    const before = holders.get(bytes) ?? 0;
    if (before === 0 && held > 0 && held + bytes.length > limit) return false;
    holders.set(bytes, before + 1);
    if (before === 0) held += bytes.length;
    response.once('close', () => {
      const left = (holders.get(bytes) ?? 0) - 1;
      if (left > 0) {
        holders.set(bytes, left);
      } else {
        holders.delete(bytes);
        held -= bytes.length;
      }
    });
    return true;
  }

  return {
    hold: (bytes, response) => hold(bytes, response, MAX_HELD_BYTES),
    require(bytes, response) {
      if (hold(bytes, response, MAX_REQUIRED_BYTES)) return;
      throw new OciError('TOOMANYREQUESTS', 'too many large documents are being sent; try again in a moment', { retryAfter: 1 });
    },
  };
}
