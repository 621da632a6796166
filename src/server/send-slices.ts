import type { ServerResponse } from 'node:http';
import { setImmediate as turn } from 'node:timers/promises';
import type { FileSlice, NextSlice, SocketSlice } from '../io/slice.ts';
import type { FileSender } from './send-file.ts';
import type { Writer } from './writer.ts';

export interface SlicesOptions {
  response: ServerResponse;
  sender: FileSender;
  writer: Writer;
  /** The slices of the body. */
  next: NextSlice;
  /** Called with the length of each slice before any of it is sent. @throws OciError: the body is
   *  too long */
  check(this: void, length: number): void;
  /** Bytes that the kernel has accepted. */
  sent(this: void, count: number): void;
  /** Bytes that the writer has been given. */
  written(this: void, count: number): void;
}

/** Sends slices, until the next bytes have to be read, or the client has left. Each run continues
 *  where the last one ended.
 *  @throws as `NextSlice` does */
export function createSliceSender({ response, sender, writer, next, check, sent, written }: SlicesOptions): () => Promise<void> {
  /** Up to this position the file is known to be in memory. */
  let present = 0;
  let begun = false;

  /** @returns how many bytes were taken; undefined: the next ones must be read */
  async function sendFile(slice: FileSlice): Promise<number | undefined> {
    const ready = slice.position < present ? present - slice.position : sender.ready(slice);
    if (ready === 0) return undefined;
    if (writer.underWay() > 0) {
      await writer.until(0); // this may take long: check again which bytes are in memory
      present = 0;
      return 0;
    }
    if (!begun) response.flushHeaders();
    begun = true;
    present = slice.position + ready;
    const count = sender.send(response.socket, slice, ready);
    if (count === undefined) return undefined;
    if (count === 0) return writePiece(slice, ready);
    return accepted(count);
  }

  /** Lets Node's socket wait for the client. */
  function writePiece(slice: FileSlice, ready: number): number | undefined {
    const piece = sender.read(slice, ready);
    if (piece === undefined) return undefined;
    writer.write(piece);
    written(piece.length);
    return piece.length;
  }

  async function passOn(slice: SocketSlice): Promise<number | undefined> {
    await writer.until(0);
    const count = sender.pass(response.socket, slice);
    return count === 0 ? undefined : accepted(count);
  }

  async function accepted(count: number): Promise<number> {
    sent(count);
    await turn(); // a fast client would keep all others waiting
    return count;
  }

  return async () => {
    present = 0;
    for (let taken = 0; !response.closed;) {
      const slice = await next(taken);
      if (slice === undefined) return;
      check(slice.length);
      const count = await ('file' in slice ? sendFile(slice) : passOn(slice));
      if (count === undefined) return;
      taken = count;
    }
  };
}
