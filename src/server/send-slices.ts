import type { ServerResponse } from 'node:http';
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
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

/** A shorter rest is not worth a timer, in ms. */
const LEAST_REST_MS = 2;
const MAX_REST_MS = 16;

/** Sends slices, until the next bytes have to be read, or the client has left. Each run continues
 *  where the last one ended.
 *  @throws as `NextSlice` does */
export function createSliceSender({ response, sender, writer, next, check, sent, written }: SlicesOptions): () => Promise<void> {
  const pace = createPace();
  /** Up to this position the file is known to be in memory. */
  let present = 0;
  let begun = false;
  /** The client has just been left alone: it is slow, and may get the bytes of two calls at once. */
  let hasRested = false;

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
    accepted(count);
    const restMs = count === ready ? 0 : pace.restMs(sender.unsent(response.socket));
    const isNext = hasRested && count === ready;
    hasRested = restMs > 0;
    if (hasRested) await delay(restMs);
    else if (count === 0) return writePiece(slice, ready);
    else if (!isNext) await turn(); // a fast client would keep all others waiting
    return count;
  }

  /** Lets Node's socket wait for the client. */
  function writePiece(slice: FileSlice, ready: number): number | undefined {
    const piece = sender.read(slice, ready);
    if (piece === undefined) return undefined;
    writer.write(piece);
    written(piece.length);
    pace.sent(piece.length);
    return piece.length;
  }

  async function passOn(slice: SocketSlice): Promise<number | undefined> {
    await writer.until(0);
    const count = sender.pass(response.socket, slice);
    if (count === 0) return undefined;
    accepted(count);
    await turn();
    return count;
  }

  function accepted(count: number): void {
    sent(count);
    pace.sent(count);
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

/** Knows how fast a client takes bytes. */
interface Pace {
  sent(this: void, bytes: number): void;
  /** Call it when the client's socket is full, with how many bytes it has not sent.
   *  @returns for how long to leave it alone, in ms: a slow client takes no more than half of them
   *  meanwhile. 0: wait until the socket reports that it has room */
  restMs(this: void, unsent: number): number;
}

/** A socket reports room as soon as a third of its buffer is free, which a client at 100 MB/s may
 *  cause thousands of times for a gigabyte; each time takes about 50 µs. */
function createPace(): Pace {
  let fullAt: number | undefined;
  let since = 0;
  return {
    sent: (bytes) => void (since += bytes),
    restMs(unsent) {
      const now = performance.now();
      const bytesPerMs = fullAt === undefined || since === 0 ? 0 : since / (now - fullAt);
      fullAt = now;
      since = 0;
      const restMs = bytesPerMs === 0 ? 0 : Math.min(MAX_REST_MS, unsent / 2 / bytesPerMs);
      return restMs < LEAST_REST_MS ? 0 : Math.floor(restMs);
    },
  };
}
