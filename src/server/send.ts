import type { ServerResponse } from 'node:http';
import { OciError } from '../oci/error.ts';
import { sliceOf } from '../io/slice.ts';
import type { Body } from '../oci/registry.ts';
import { isPlainSocket } from '../io/libc.ts';
import type { FileSender } from './send-file.ts';
import { createSliceSender } from './send-slices.ts';
import { createWriter } from './writer.ts';

export interface SentBody {
  /** Bytes of the body that the kernel has accepted. */
  bytes: number;
  /** False: the client left before the end. */
  complete: boolean;
}

export interface SendOptions {
  /** The length of the body, in bytes; undefined: it is sent chunked. */
  length: number | undefined;
  /** Sends bytes from a file, or from another socket, without reading them; absent: all bytes are
   *  read. */
  fileSender?: (() => Promise<FileSender | undefined>) | undefined;
}

/** Sends `body` as the rest of a response whose head has been written.
 *
 *  This is the hot loop of the program, and its only stream without `pipeline`: it requests the
 *  next chunk while the previous one is being sent, and has at most two chunks in flight, since a
 *  producer may alternate two buffers (see `Blob.body`). A loop over 1 MiB buffers measured two to
 *  three times the throughput of `createReadStream().pipe()`. Bytes of a file that are in the page
 *  cache are sent without being read, up to twice as fast again (docs/decisions/sendfile.md), and so
 *  is what arrives at another socket (docs/decisions/splice.md).
 *  @throws what `body` throws, and OciError SIZE_INVALID if it is not `length` bytes long: cut the
 *  connection then, so that the client does not take a partial body for the whole */
export async function sendBody(response: ServerResponse, body: Body, { length, fileSender }: SendOptions): Promise<SentBody> {
  const iterator = body[Symbol.asyncIterator]();
  const writer = createWriter(response);
  let given = 0;
  let unread = 0;
  let ended = false;
  // The head goes out with the first chunk if that is available at once, else alone: clients wait
  // for headers only so long.
  const head = setImmediate(() => response.flushHeaders());
  const check = (more: number): void => {
    if (length !== undefined && given + more > length) throw wrongLength(given + more, length);
  };

  async function openSlices(): Promise<() => Promise<void>> {
    const next = length !== undefined && isPlainSocket(response.socket) ? sliceOf(body) : undefined;
    const sender = next === undefined ? undefined : await fileSender?.();
    if (sender === undefined || next === undefined) return async () => undefined;
    const written = (count: number): void => void (given += count);
    const sent = (count: number): void => {
      given += count;
      unread += count;
    };
    return createSliceSender({ response, sender, writer, next, check, sent, written });
  }

  try {
    const sendSlices = await openSlices();
    while (!response.closed) {
      await sendSlices();
      if (response.closed) break;
      const { value: chunk, done } = await iterator.next();
      clearImmediate(head);
      if (done === true) {
        ended = true;
        if (length !== undefined && given < length) throw wrongLength(given, length);
        break;
      }
      check(chunk.length);
      given += chunk.length;
      if (chunk.length > 0) writer.write(chunk);
      // `next` makes the chunk before the last invalid, and at the end a producer may reuse both.
      const last = length === undefined || given === length || chunk.length === 0;
      await writer.until(last ? 0 : 1);
    }
    if (ended) await writer.end();
    return { bytes: unread + writer.written(), complete: ended && response.writableFinished };
  } finally {
    clearImmediate(head);
    if (!ended) await iterator.return?.();
  }
}

function wrongLength(given: number, length: number): OciError {
  return new OciError('SIZE_INVALID', `a body of ${length} bytes had ${given < length ? 'only' : 'at least'} ${given}`);
}
