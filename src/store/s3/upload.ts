import type { ClientRequest } from 'node:http';
import { Readable } from 'node:stream';
import type { ByteRange } from '../../oci/range.ts';
import { SourceError } from '../failure.ts';
import { wrongLength } from '../failure.ts';
import type { StoreSource } from '../store.ts';

/** Bytes that are withheld until the source has ended at its announced length. A source that is no
 *  larger is sent in one write with the request's head. */
const TAIL = 2 ** 16;

export interface Upload {
  source: StoreSource;
  range: Required<ByteRange> | undefined;
  /** Bytes, of the source or its range. */
  length: number;
  signal: AbortSignal;
}

/** Sends a source as the body of the request that `send` makes. The SDK would wait forever for the
 *  rest of a source that failed; this function ends the request instead. It always closes the
 *  source.
 *  @throws SourceError: the source failed, or had another length (OciError SIZE_INVALID); what
 *  `send` throws */
export async function upload<T>(
  { source, range, length, signal }: Upload,
  send: (body: Readable, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const cut = new AbortController();
  const over = new AbortController();
  let failure: SourceError | undefined;
  const fail = (cause: unknown): void => {
    failure ??= new SourceError('the source failed', { cause });
    cut.abort();
  };
  try {
    const opened = source.open({ signal: AbortSignal.any([signal, over.signal]), ...(range === undefined ? {} : { range }) });
    const chunks = await opened.catch((cause: unknown) => {
      throw new SourceError('the source failed', { cause });
    });
    const body = pipedBody((request) => void sendAll(request, chunks, length).catch(fail));
    body.on('error', fail);
    return await send(body, AbortSignal.any([signal, cut.signal]));
  } catch (error) {
    const thrown = signal.aborted ? error : (failure ?? error);
    cut.abort(); // the answer may have come before the whole body was sent
    throw thrown;
  } finally {
    over.abort();
  }
}

/** A body for the SDK, which accepts only streams and calls `pipe` with its request (smithy's
 *  node-http-handler). This body streams nothing itself: its `pipe` calls `send`. */
function pipedBody(send: (request: ClientRequest) => void): Readable {
  const body = new Readable({
    read: () => void body.destroy(new Error('the SDK reads a body that it used to pipe')),
  });
  return Object.assign(body, {
    pipe<T extends NodeJS.WritableStream>(request: T): T {
      send(request as unknown as ClientRequest);
      return request;
    },
  });
}

/** Writes exactly `length` bytes, as `sendBody` does for the server. At most two chunks are under
 *  way, so that their buffers can be used again: with streams each byte cost more than twice as
 *  much CPU, half of it for garbage collection. When the request ends early, the caller that waits
 *  for the answer ends the source.
 *  @throws what `chunks` throws; OciError SIZE_INVALID, before the last bytes of a body of the
 *  wrong length are sent */
async function sendAll(request: ClientRequest, chunks: AsyncIterable<Uint8Array>, length: number): Promise<void> {
  let size = 0;
  let before: Promise<void> | undefined;
  let tail = Buffer.alloc(0);
  for await (const chunk of chunks) {
    size += chunk.length;
    if (size > length) throw wrongLength(length, size);
    const withheld = size < length ? 0 : Math.min(chunk.length, TAIL);
    if (withheld > 0) tail = Buffer.from(chunk.subarray(chunk.length - withheld));
    const sent = write(request, chunk.subarray(0, chunk.length - withheld));
    await before;
    before = sent;
    // The next read invalidates the chunk before the last one, and a source that reports its end
    // may reuse both buffers.
    if (size === length) await sent;
  }
  if (size < length) throw wrongLength(length, size);
  request.end(tail);
}

/** Resolves when the kernel has taken `chunk`. */
function write(request: ClientRequest, chunk: Uint8Array): Promise<void> | undefined {
  return chunk.length === 0 ? undefined : new Promise((resolve) => request.write(chunk, () => resolve()));
}
