import type { Hash } from 'node:crypto';
import { createBody, iterableSource } from '../io/body.ts';
import { copyOf } from '../io/buffers.ts';
import type { Body } from '../oci/registry.ts';

/** How many bytes at a blob's end are withheld from every response until the blob's digest has been
 *  checked (promise 3). */
export const WITHHELD_BYTES = 64 * 1024;

/** The position up to which a reader may have the bytes before `end` while the digest has not been
 *  checked. While the size is unknown, the blob may end at `end`: its last bytes so far are
 *  withheld. */
export function freeEnd(end: number, size: number | undefined): number {
  return Math.min(end, (size ?? end) - WITHHELD_BYTES);
}

/** Holds back the end of a blob that is passed on as it arrives. */
export interface Withholder {
  /** Takes the next bytes, and returns those that may be sent, in order: as copies near the end,
   *  since several chunks may be taken then while one is on its way to the client (see `Blob.body`).
   *  `size`: of the whole blob. */
  take(chunk: Uint8Array, at: { position: number; size: number | undefined }): Uint8Array[];
  /** The bytes held back; call it once the digest has been checked. */
  rest(): Uint8Array[];
}

/** Passes on [from, to) of the blob; `to` is undefined for all. */
export function createWithholder(from: number, to = Infinity): Withholder {
  let held: { position: number; bytes: Uint8Array }[] = [];
  return {
    take(chunk, { position, size }) {
      const end = position + chunk.length;
      const wanted = chunk.subarray(
        Math.min(chunk.length, Math.max(0, from - position)),
        Math.max(0, Math.min(chunk.length, to - position)),
      );
      const limit = freeEnd(end, size);
      // A part of the next chunk may be sent, too.
      if (held.length === 0 && position >= from && end < Math.min((size ?? 0) - WITHHELD_BYTES, to)) return [chunk];
      if (wanted.length > 0) held.push({ position: Math.max(position, from), bytes: copyOf(wanted) });
      const free: Uint8Array[] = [];
      held = held.filter((part) => {
        const count = Math.max(0, Math.min(part.bytes.length, limit - part.position));
        if (count > 0) free.push(part.bytes.subarray(0, count));
        part.bytes = part.bytes.subarray(count);
        part.position += count;
        return part.bytes.length > 0;
      });
      return free;
    },
    rest: () => held.splice(0).map(({ bytes }) => bytes),
  };
}

/** Passes on `body`, a whole blob, and hashes it with `hash`. Its end is withheld until `check`
 *  resolves, which runs once the whole blob has been hashed.
 *  @throws what `body` and `check` throw */
export function withheldBody(
  body: Body,
  { size, signal }: { size: number; signal: AbortSignal },
  { hash, check }: { hash: Hash; check(this: void): Promise<void> },
): Body {
  const source = iterableSource(body);
  const withholder = createWithholder(0);
  const ready: Uint8Array[] = [];
  let position = 0;
  let ended = false;
  async function pull(): Promise<Uint8Array | undefined> {
    while (ready.length === 0 && !ended) {
      const chunk = await source.pull();
      if (chunk === undefined) {
        ended = true;
        await check();
        ready.push(...withholder.rest());
      } else {
        hash.update(chunk);
        ready.push(...withholder.take(chunk, { position, size }));
        position += chunk.length;
      }
    }
    return ready.shift();
  }
  return createBody({ pull, close: (aborted) => source.close(aborted) }, signal);
}
