import type { ServerResponse } from 'node:http';
import { setImmediate as turn } from 'node:timers/promises';
import { OciError } from '../oci/error.ts';
import { fileSliceOf } from '../io/file-slice.ts';
import type { Body } from '../oci/registry.ts';
import { takesFiles, type FileSender } from './send-file.ts';

export interface SentBody {
  /** Bytes of the body that the kernel has accepted. */
  bytes: number;
  /** False: the client left before the end. */
  complete: boolean;
}

export interface SendOptions {
  /** The length of the body, in bytes; undefined: it is sent chunked. */
  length: number | undefined;
  /** Sends bytes from a file without reading them; absent: all bytes are read. */
  fileSender?: (() => Promise<FileSender | undefined>) | undefined;
}

/** Sends `body` as the rest of a response whose head has been written.
 *
 *  This is the hot loop of the program, and its only stream without `pipeline`: it requests the
 *  next chunk while the previous one is being sent, and has at most two chunks in flight, since a
 *  producer may alternate two buffers (see `Blob.body`). A loop over 1 MiB buffers measured two to
 *  three times the throughput of `createReadStream().pipe()`. Bytes of a file that are in the page
 *  cache are sent without being read, up to twice as fast again (docs/decisions/sendfile.md).
 *  @throws what `body` throws, and OciError SIZE_INVALID if it is not `length` bytes long: cut the
 *  connection then, so that the client does not take a partial body for the whole */
export async function sendBody(response: ServerResponse, body: Body, { length, fileSender }: SendOptions): Promise<SentBody> {
  const iterator = body[Symbol.asyncIterator]();
  const nextSlice = fileSliceOf(body);
  const writer = createWriter(response);
  let given = 0;
  let filed = 0;
  let ended = false;
  // The head goes out with the first chunk if that is available at once, else alone: clients wait
  // for headers only so long.
  const head = setImmediate(() => response.flushHeaders());

  /** Sends from files, until the next bytes are not in memory or the socket's buffer is full. */
  async function sendFiles(): Promise<void> {
    if (nextSlice === undefined || length === undefined || !takesFiles(response.socket)) return;
    const sender = await fileSender?.();
    let present = 0; // up to this position the file is known to be in memory
    for (let taken = 0; sender !== undefined && !response.closed;) {
      const slice = await nextSlice(taken);
      taken = 0;
      if (slice === undefined) return;
      if (given + slice.length > length) throw wrongLength(given + slice.length, length);
      const ready = slice.position < present ? present - slice.position : sender.ready(slice);
      if (ready === 0) return;
      if (writer.underWay() > 0) {
        await writer.until(0); // this may take long: check again which bytes are in memory
        present = 0;
        continue;
      }
      if (given === 0) response.flushHeaders();
      present = slice.position + ready;
      const sent = sender.send(response.socket, slice, ready);
      if (sent === undefined) return;
      if (typeof sent === 'number') {
        taken = sent;
        filed += sent;
        await turn(); // a fast client would keep all others waiting
      } else {
        taken = sent.length;
        writer.write(sent);
      }
      given += taken;
    }
  }

  try {
    while (!response.closed) {
      await sendFiles();
      if (response.closed) break;
      const { value: chunk, done } = await iterator.next();
      clearImmediate(head);
      if (done === true) {
        ended = true;
        if (length !== undefined && given < length) throw wrongLength(given, length);
        break;
      }
      given += chunk.length;
      if (length !== undefined && given > length) throw wrongLength(given, length);
      if (chunk.length > 0) writer.write(chunk);
      // `next` makes the chunk before the last invalid, and at the end a producer may reuse both.
      const last = length === undefined || given === length || chunk.length === 0;
      await writer.until(last ? 0 : 1);
    }
    if (ended) await writer.end();
    return { bytes: filed + writer.written(), complete: ended && response.writableFinished };
  } finally {
    clearImmediate(head);
    if (!ended) await iterator.return?.();
  }
}

function wrongLength(given: number, length: number): OciError {
  return new OciError('SIZE_INVALID', `a body of ${length} bytes had ${given < length ? 'only' : 'at least'} ${given}`);
}

interface Writer {
  write(chunk: Uint8Array): void;
  /** How many chunks are being written. */
  underWay(): number;
  /** Waits until at most this many chunks are being written, or the client has left. */
  until(underWay: number): Promise<void>;
  end(): Promise<void>;
  written(): number;
}

function createWriter(response: ServerResponse): Writer {
  let underWay = 0;
  let written = 0;
  let wake: (() => void) | undefined;
  const notify = () => wake?.();
  response.once('close', notify);

  const mustWait = (wanted: number) => underWay > wanted && !response.closed;
  const until = async (wanted: number) => {
    while (mustWait(wanted)) {
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      await promise;
    }
  };
  return {
    write(chunk) {
      underWay++;
      response.write(chunk, (error) => {
        underWay--;
        if (error === null || error === undefined) written += chunk.length;
        notify();
      });
    },
    underWay: () => underWay,
    until,
    async end() {
      underWay++;
      response.end(() => {
        underWay--;
        notify();
      });
      await until(0);
    },
    written: () => written,
  };
}
