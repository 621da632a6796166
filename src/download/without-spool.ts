import type { Hash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { agrees, type Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import { WITHHELD, type FillSource } from './source.ts';
import { backoff } from '../async/backoff.ts';

export interface UnspooledOptions {
  digest: Digest;
  source: FillSource;
  /** Bytes. */
  maxSize: number;
  /** Of the whole blob, when it is known. */
  size: number | undefined;
  /** What the reader wants: [from, to), to the blob's end when `to` is undefined. */
  from: number;
  to: number | undefined;
  /** Has seen the blob's first `hashed` bytes. */
  hash: Hash;
  hashed: number;
}

const MAX_FAILURES = 6;

/** A blob for one reader, kept nowhere: what is left when the disk is full. Verified like every other: a part that reaches
 *  into the last bytes waits until the whole has been hashed (promise 3). A cut line is resumed. Chunks are copies:
 *  several may be read here while one is on its way out.
 *  @throws OciError as the source does; UNAVAILABLE: wrong bytes, or cut too often */
export async function* unspooled(options: UnspooledOptions, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const { digest, from, to, hash } = options;
  const verify = to === undefined || options.size === undefined || to > options.size - WITHHELD;
  let size = options.size;
  let hashed = options.hashed;
  let position = verify ? Math.min(from, hashed) : from;
  const held: Uint8Array[] = [];
  let heldSize = 0;

  for (let failures = 0; ;) {
    const before = position;
    try {
      const range = verify ? { start: position } : { start: position, end: to - 1 };
      const blob = await options.source(position === 0 && verify ? undefined : range, signal);
      size = blob.size ?? size;
      let at = blob.range?.start ?? 0;
      for await (const chunk of blob.body) {
        const offset = at;
        at += chunk.length;
        if (at > options.maxSize)
          throw new OciError('SIZE_INVALID', `${digest} has more than the ${options.maxSize} bytes that are allowed`);
        if (at <= position) continue;
        const news = chunk.subarray(position - offset);
        if (verify && at > hashed) {
          hash.update(chunk.subarray(Math.max(0, hashed - offset)));
          hashed = at;
        }
        const wanted = news.subarray(
          Math.min(news.length, Math.max(0, from - position)),
          Math.max(0, Math.min(news.length, (to ?? Infinity) - position)),
        );
        const start = Math.max(position, from);
        position = at;
        if (!verify) {
          if (wanted.length > 0) yield Uint8Array.from(wanted);
          if (position >= to) return;
          continue;
        }
        // Free to go: what lies before the last WITHHELD bytes, of the blob or, without a size, of what has come so far.
        const free = size === undefined ? 0 : Math.max(0, Math.min(wanted.length, size - WITHHELD - start));
        if (free > 0) {
          yield* held.splice(0); // of when nobody knew the size: they lie before these
          heldSize = 0;
          yield Uint8Array.from(wanted.subarray(0, free));
        }
        if (free < wanted.length) {
          held.push(Uint8Array.from(wanted.subarray(free)));
          heldSize += wanted.length - free;
        }
        while (size === undefined && heldSize - (held[0]?.length ?? 0) > WITHHELD) {
          const oldest = held.shift();
          if (oldest === undefined) break;
          heldSize -= oldest.length;
          yield oldest;
        }
      }
      if (size === undefined || position >= size || (!verify && position >= to)) break;
      throw new OciError('UNAVAILABLE', `upstream ended ${digest} early`, { origin: 'upstream' });
    } catch (error) {
      if (signal.aborted || isAbsent(error) || isOciError(error, 'SIZE_INVALID')) throw error;
      failures = position > before ? 1 : failures + 1;
      if (failures > MAX_FAILURES) throw error;
      await delay(backoff(failures, { baseMs: 100, capMs: 5000, jitter: 'full' }), undefined, { signal });
    }
  }
  if (verify && !agrees(hash, digest)) {
    throw new OciError('UNAVAILABLE', `what upstream sent for ${digest} has another digest`, { origin: 'upstream' });
  }
  yield* held;
}
