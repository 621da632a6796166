import { createSemaphore } from '../../async/semaphore.ts';
import { OciError } from '../../oci/error.ts';
import { freeMemory } from '../../io/free-memory.ts';
import type { StoreContext, StoreSource } from '../store.ts';
import type { StreamContext, UploadStore } from '../upload-store.ts';
import type { Availability } from './availability.ts';
import { MAX_PUT, MIN_PART_SIZE, PART_SIZE, type Putter, type Target } from './put.ts';

/** Parts of one size in a blob of unknown size, whose parts grow: 10,000 of them have to hold the
 *  largest blob. */
const PARTS_OF_ONE_SIZE = 2000;
/** Streams of unknown size that hold a part in memory at once; more wait. */
const MAX_BUFFERED_STREAMS = 12;
/** How many of them receive the next part while one is sent. */
const MAX_OVERLAPPING_STREAMS = 6;
/** Chunks of a part; if a client sends smaller ones, they are joined. */
const MAX_CHUNKS = 1024;

export interface StreamsOptions {
  putter: Putter;
  attempt: Availability['attempt'];
  /** The location of a key. */
  target(this: void, key: string, signal: AbortSignal): Promise<Target>;
  /** The chunks belong to the bodies, as those of a store's own objects do. */
  borrowed?: boolean;
}

/** A stream on its way to an object. */
interface Stream {
  key: string;
  body: AsyncIterable<Uint8Array>;
  signal: AbortSignal;
}

/** Uploads a body. @returns its number of bytes */
export type BodyWriter = (key: string, body: AsyncIterable<Uint8Array>, context: StoreContext & { size?: number }) => Promise<number>;

/** Uploads streams to S3. */
export function createStreamWriter(options: StreamsOptions): UploadStore['writeStream'] {
  const write = createBodyWriter(options);
  return (key, batches, context) => write(key, hashed(batches, context), context);
}

async function* hashed(batches: AsyncIterable<readonly Uint8Array[]>, { hash, check }: StreamContext): AsyncGenerator<Uint8Array> {
  for await (const batch of batches) {
    for (const chunk of batch) {
      hash.update(chunk);
      yield chunk;
    }
  }
  await check?.();
}

export function createBodyWriter({ putter, attempt, target, borrowed = false }: StreamsOptions): BodyWriter {
  const buffered = createSemaphore(MAX_BUFFERED_STREAMS);
  const overlapping = createOverlap(MAX_OVERLAPPING_STREAMS);
  return async (key, body, { size, signal }) => {
    const call = { doing: `writing ${key}`, kind: 'write', signal, limit: Infinity } as const;
    const stream = { key, body, signal };
    if (size === undefined) {
      const write = async () => writeUnknown({ putter, overlapping }, await target(key, signal), stream);
      return buffered.run(() => attemptOnce(attempt, call, write), signal);
    }
    const known = { ...stream, body: borrowed ? body : freed(body), size };
    await attemptOnce(attempt, call, async () => writeKnown(putter, await target(key, signal), known));
    return size;
  };
}

/** A stream of known size: nothing of it stays in memory, and its chunks need be valid only as long
 *  as a `Blob`'s body says. */
async function writeKnown({ whole, inParts }: Putter, to: Target, { key, body, size, signal }: Stream & { size: number }): Promise<void> {
  if (size <= MAX_PUT) return whole({ key, target: to, source: { size, open: () => Promise.resolve(body) }, signal });
  const take = createSplitter(body);
  await inParts(to, signal, async (parts) => {
    for (let start = 0; start < size; start += PART_SIZE) {
      const length = Math.min(PART_SIZE, size - start);
      await parts.add({ size: length, open: () => Promise.resolve(take(length)) });
    }
    await take.requireEnd();
  });
}

/** A stream of unknown size: one part of it is in memory, or two. */
async function writeUnknown(
  { putter: { whole, inParts }, overlapping }: { putter: Putter; overlapping: Overlap },
  to: Target,
  { key, body, signal }: Stream,
): Promise<number> {
  const pieces = inPieces(body);
  const first = await pieces.next();
  const head = first.value ?? { chunks: [], size: 0, isLast: true };
  if (head.isLast) {
    await whole({ key, target: to, source: pieceSource(head), signal });
    return head.size;
  }
  let size = head.size;
  await inParts(to, signal, async (parts) => {
    let sending = parts.add(pieceSource(head));
    const overlaps = overlapping.enter();
    try {
      sending.catch(() => undefined); // awaited below
      if (!overlaps) await sending;
      for await (const piece of pieces) {
        await sending;
        size += piece.size;
        sending = parts.add(pieceSource(piece));
        sending.catch(() => undefined);
        if (!overlaps) await sending;
      }
      await sending;
    } finally {
      if (overlaps) overlapping.leave();
      await sending.catch(() => undefined); // its error was thrown, or the body's is
    }
  });
  return size;
}

interface Overlap {
  /** @returns false: there are too many */
  enter(): boolean;
  leave(): void;
}

function createOverlap(limit: number): Overlap {
  let inside = 0;
  return {
    enter: () => inside < limit && ++inside > 0,
    leave: () => void inside--,
  };
}

/** A stream cannot be sent again once S3 has received a part of it. */
async function attemptOnce<T>(
  attempt: Availability['attempt'],
  call: Parameters<Availability['attempt']>[0],
  work: () => Promise<T>,
): Promise<T> {
  let failure: { error: unknown } | undefined;
  const result = await attempt(call, async () => {
    if (failure !== undefined) throw failure.error;
    try {
      return { value: await work() };
    } catch (error) {
      failure = { error };
      throw error;
    }
  });
  if (result === undefined) throw new OciError('UNAVAILABLE', `S3 did not store the bytes sent for ${call.doing}`, { origin: 'storage' });
  return result.value;
}

/** Splits a body into pieces of exact lengths. */
function createSplitter(body: AsyncIterable<Uint8Array>) {
  const chunks = body[Symbol.asyncIterator]();
  let rest: Uint8Array = Buffer.alloc(0);
  async function* take(length: number): AsyncGenerator<Uint8Array> {
    for (let left = length; left > 0;) {
      if (rest.length === 0) {
        const next = await chunks.next();
        if (next.done === true) return; // `upload` notices that bytes are missing
        rest = next.value;
      }
      const piece = rest.subarray(0, left);
      rest = rest.subarray(piece.length);
      left -= piece.length;
      yield piece;
    }
  }
  return Object.assign(take, {
    /** Lets the body check its bytes at the end. @throws what the body throws; OciError
     *  SIZE_INVALID */
    async requireEnd(): Promise<void> {
      if (rest.length > 0 || (await chunks.next()).done !== true)
        throw new OciError('SIZE_INVALID', 'the body has more bytes than announced');
    },
  });
}

interface Piece {
  chunks: readonly Uint8Array[];
  /** Bytes. */
  size: number;
  isLast: boolean;
}

/** The source of a piece that is sent once: its memory is freed meanwhile. */
function pieceSource({ chunks, size }: Piece): StoreSource {
  return { size, open: () => Promise.resolve(freed(chunks)) };
}

/** @param chunks whose memory is freed as soon as the reader does not look at them */
async function* freed(chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  // A chunk is valid until the second `next` after it (oci/registry.ts).
  let [before, last]: (Uint8Array | undefined)[] = [];
  for await (const chunk of chunks) {
    if (before !== undefined) freeMemory(before);
    [before, last] = [last, chunk];
    yield chunk;
  }
}

/** Collects a body into parts of at least the size that S3 requires, without copying. An empty body
 *  has none. */
async function* inPieces(body: AsyncIterable<Uint8Array>): AsyncGenerator<Piece, undefined> {
  let count = 0;
  let chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    if (size >= MIN_PART_SIZE * 2 ** Math.floor(count / PARTS_OF_ONE_SIZE)) {
      yield { chunks, size, isLast: false };
      count++;
      [chunks, size] = [[], 0];
    }
    size += chunk.length;
    chunks.push(chunk);
    if (chunks.length > MAX_CHUNKS) chunks = [Buffer.concat(chunks)];
  }
  if (size > 0) yield { chunks, size, isLast: true };
  return undefined;
}
