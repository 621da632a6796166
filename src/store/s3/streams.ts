import { createSemaphore } from '../../async/semaphore.ts';
import { OciError } from '../../oci/error.ts';
import { bytesSource, type StoreContext } from '../store.ts';
import type { UploadStore } from '../upload-store.ts';
import type { Availability } from './availability.ts';
import { MAX_PUT, MIN_PART_SIZE, PART_SIZE, type Putter, type Target } from './put.ts';

/** Parts of one size in a blob of unknown size, whose parts grow: 10,000 of them have to hold the
 *  largest blob. */
const PARTS_OF_ONE_SIZE = 2000;
/** Streams of unknown size that hold a part in memory at once; more wait. */
const MAX_BUFFERED_STREAMS = 12;

export interface StreamsOptions {
  putter: Putter;
  attempt: Availability['attempt'];
  /** The location of a key. */
  target(this: void, key: string, signal: AbortSignal): Promise<Target>;
}

/** A stream on its way to an object. */
interface Stream {
  key: string;
  body: AsyncIterable<Uint8Array>;
  signal: AbortSignal;
}

/** Uploads streams to S3. */
export function createStreamWriter({ putter, attempt, target }: StreamsOptions): UploadStore['writeStream'] {
  const buffered = createSemaphore(MAX_BUFFERED_STREAMS);
  return async (key, body, { size, signal }: StoreContext & { size?: number }) => {
    const call = { doing: `writing ${key}`, kind: 'write', signal, limit: Infinity } as const;
    const stream = { key, body, signal };
    if (size === undefined) {
      const write = async () => writeUnknown(putter, await target(key, signal), stream);
      return buffered.run(() => attemptOnce(attempt, call, write), signal);
    }
    await attemptOnce(attempt, call, async () => writeKnown(putter, await target(key, signal), { ...stream, size }));
    return size;
  };
}

/** A stream of known size: nothing of it stays in memory. */
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

/** A stream of unknown size: one part of it at a time is in memory. */
async function writeUnknown({ whole, inParts }: Putter, to: Target, { key, body, signal }: Stream): Promise<number> {
  const pieces = inPieces(body);
  const first = await pieces.next();
  const head = first.value ?? Buffer.alloc(0);
  const second = first.done === true ? first : await pieces.next();
  if (second.done === true) {
    await whole({ key, target: to, source: bytesSource(head), signal });
    return head.length;
  }
  let size = 0;
  await inParts(to, signal, async (parts) => {
    const add = async (bytes: Uint8Array): Promise<void> => {
      await parts.add(bytesSource(bytes));
      size += bytes.length;
    };
    await add(head);
    await add(second.value);
    for (let piece = await pieces.next(); piece.done !== true; piece = await pieces.next()) await add(piece.value);
  });
  return size;
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

/** Collects a body into parts of at least the size that S3 requires. */
async function* inPieces(body: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, undefined> {
  let count = 0;
  let buffer = Buffer.allocUnsafe(MIN_PART_SIZE);
  let used = 0;
  for await (let chunk of body) {
    while (chunk.length > 0) {
      if (used === buffer.length) {
        yield buffer;
        count++;
        used = 0;
        buffer = Buffer.allocUnsafe(MIN_PART_SIZE * 2 ** Math.floor(count / PARTS_OF_ONE_SIZE));
      }
      const piece = chunk.subarray(0, buffer.length - used);
      buffer.set(piece, used);
      used += piece.length;
      chunk = chunk.subarray(piece.length);
    }
  }
  if (used > 0) yield buffer.subarray(0, used);
  return undefined;
}
