import type { Hash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { backoff } from '../async/backoff.ts';
import { agrees, type Digest } from '../oci/digest.ts';
import { isAbsent, isOciError, OciError } from '../oci/error.ts';
import type { SourceList } from './source.ts';
import { createWithholder, WITHHELD_BYTES } from './withheld.ts';

export interface WithoutSpoolOptions {
  digest: Digest;
  sources: Pick<SourceList, 'open'>;
  /** Bytes; a larger blob is refused. */
  maxSize: number;
  /** The size of the whole blob, if known. */
  size: number | undefined;
  /** The part that the reader wants: [from, to), up to the blob's end if `to` is undefined. */
  from: number;
  to: number | undefined;
  /** A hash of the blob's first `hashed` bytes, at most those before `from`. */
  hash: Hash;
  hashed: number;
}

const MAX_FAILURES = 6;

/** Streams a blob to one reader without storing it: the fallback when the disk is full. It is
 *  verified like any other blob: a part that reaches into the last bytes waits until the whole blob
 *  has been hashed (promise 3). A response that breaks off is resumed.
 *  @throws OciError as the source does; UNAVAILABLE: wrong bytes, or too many broken responses */
export async function* readWithoutSpool(options: WithoutSpoolOptions, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const { digest, from, to, hash, hashed, size: known } = options;
  if (to !== undefined && known !== undefined && to <= known - WITHHELD_BYTES) {
    for await (const { chunk } of fetchFrom(options, { start: from, end: to }, signal)) yield chunk;
    return;
  }
  const withholder = createWithholder(from, to);
  for await (const { chunk, position, size } of fetchFrom(options, { start: hashed, end: undefined }, signal)) {
    hash.update(chunk);
    yield* withholder.take(chunk, { position, size });
  }
  if (!agrees(hash, digest)) {
    throw new OciError('UNAVAILABLE', `the bytes from upstream do not match ${digest}`, { origin: 'upstream', corrupt: true });
  }
  yield* withholder.rest();
}

export interface Fetched {
  chunk: Uint8Array;
  /** The position of the chunk in the blob. */
  position: number;
  /** The size of the blob, once it is known. */
  size: number | undefined;
}

/** Reads [start, end), in as many requests as necessary.
 *  @throws as the source does */
export async function* fetchFrom(
  { digest, sources, maxSize, ...options }: Pick<WithoutSpoolOptions, 'digest' | 'sources' | 'maxSize' | 'size'>,
  { start, end }: { start: number; end: number | undefined },
  signal: AbortSignal,
): AsyncGenerator<Fetched> {
  let { size } = options;
  let position = start;
  for (let failures = 0; ;) {
    const before = position;
    try {
      const range = position === 0 && end === undefined ? undefined : { start: position, ...(end === undefined ? {} : { end: end - 1 }) };
      const blob = await sources.open(range, signal);
      size = blob.size ?? size;
      let at = blob.range?.start ?? 0;
      for await (const all of blob.body) {
        const offset = at;
        at += all.length;
        if (at > maxSize) throw new OciError('SIZE_INVALID', `${digest} has more than the ${maxSize} bytes that are allowed`);
        if (at <= position) continue;
        const fetched = { chunk: all.subarray(position - offset, (end ?? Infinity) - offset), position, size };
        position = at;
        yield fetched;
        if (end !== undefined && position >= end) return;
      }
      if (position >= Math.min(size ?? 0, end ?? Infinity)) return;
      throw new OciError('UNAVAILABLE', `upstream ended ${digest} early`, { origin: 'upstream' });
    } catch (error) {
      if (signal.aborted || isAbsent(error) || isOciError(error, 'SIZE_INVALID')) throw error;
      failures = position > before ? 1 : failures + 1;
      if (failures > MAX_FAILURES) throw error;
      await delay(backoff(failures, { baseMs: 100, capMs: 5000, jitter: 'full' }), undefined, { signal });
    }
  }
}
