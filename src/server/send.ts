import type { ServerResponse } from 'node:http';
import { setImmediate as turn } from 'node:timers/promises';
import { OciError } from '../oci/error.ts';
import { fileSliceOf } from '../io/file-slice.ts';
import type { Body } from '../oci/registry.ts';
import { takesFiles, type FileSender } from './send-file.ts';

export interface SentBody {
  /** Bytes that the kernel took. */
  bytes: number;
  /** False: the client was gone first. */
  complete: boolean;
}

export interface SendOptions {
  /** Of the body, in bytes; undefined: it is sent chunked. */
  length: number | undefined;
  /** Sends what lies in a file without reading it; absent: everything is read. */
  fileSender?: (() => Promise<FileSender | undefined>) | undefined;
}

/** Sends `body` as the rest of a response whose head is written, `length` bytes or, when undefined, chunked.
 *
 *  The hot loop of the program, and its one stream that is no `pipeline`: the next chunk is asked for while the one before is
 *  on its way, and at most two are under way, since a producer may alternate two buffers (see `Blob.body`). A loop over
 *  1 MiB buffers measured two to three times the throughput of `createReadStream().pipe()`. What lies in a file and in memory goes without being
 *  read, as fast as twice that (docs/decisions/sendfile.md).
 *  @throws what `body` throws, and OciError SIZE_INVALID when it is not `length` long: cut the connection then, so that the
 *          client never takes what it has for the whole */
export async function sendBody(response: ServerResponse, body: Body, { length, fileSender }: SendOptions): Promise<SentBody> {
  const iterator = body[Symbol.asyncIterator]();
  const nextSlice = fileSliceOf(body);
  const writer = createWriter(response);
  let given = 0;
  let filed = 0;
  let ended = false;
  // The head goes with the first chunk when that is at hand, else at once: clients wait only so long for headers.
  const head = setImmediate(() => response.flushHeaders());

  /** Sends what comes next from files, until there is no more of that at hand or the connection takes no more. */
  async function sendFiles(): Promise<void> {
    if (nextSlice === undefined || length === undefined || !takesFiles(response.socket)) return;
    const sender = await fileSender?.();
    let present = 0; // where what is known to be in memory ends
    for (let taken = 0; sender !== undefined && !response.closed;) {
      const slice = await nextSlice(taken);
      taken = 0;
      if (slice === undefined) return;
      if (given + slice.length > length) throw wrongLength(given + slice.length, length);
      const ready = slice.position < present ? present - slice.position : sender.ready(slice);
      if (ready === 0) return;
      if (writer.underWay() > 0) {
        await writer.until(0); // which may take long: then it is looked again what is in memory
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
        await turn(); // a client that takes all at once would keep everybody else waiting
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
      // Asking once more makes the chunk before last invalid; and who says that all has been given may take back both.
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
  /** Chunks that are. */
  underWay(): number;
  /** Waits until at most so many chunks are under way, or the client is gone. */
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
