import type { SharedBuffer } from '../../io/buffers.ts';
import type { Window, Windows } from './recent-chunks.ts';

/** Bytes that go to the disk without waiting for more. */
const ENOUGH = 256 * 1024;
/** How long fewer wait for more, in ms. */
const GATHER = 1;

/** What one connection brings, on its way into the spool: pieces as the network gives them go out in larger ones while the
 *  disk is busy, and at once while it is not. */
export interface Inlet {
  /** The position of the next byte to be taken. */
  position(): number;
  /** Copies a chunk; waits while as much as two windows is not written. */
  take(chunk: Uint8Array): Promise<void>;
  /** Waits until all that was taken is written, or no more is wanted. */
  end(): Promise<void>;
}

export interface InletWork {
  /** Gives how many of the bytes, a part of `buffer`, it has written: fewer when no more are wanted. */
  write: (bytes: Uint8Array, buffer: SharedBuffer) => Promise<number>;
  /** The window knows of what was written: who waits for it finds it there. */
  written: () => void;
}

export function createInlet(start: number, windows: Windows, { write, written: notify }: InletWork): Inlet {
  /** Oldest first; the last one is being filled. */
  const open: Window[] = [];
  let position = start;
  let unwanted = false;
  let writing: Promise<void> | undefined;
  let wake = Promise.withResolvers<void>();
  let taken: (() => void) | undefined;
  let ended = false;

  async function drain(): Promise<void> {
    for (let window = open[0], first = true; window !== undefined && !unwanted; window = open[0], first = false) {
      const { buffer, written } = window;
      if (written < window.end) {
        if (!first && !isEnough(window)) await gather(window);
        const { end } = window;
        const count = await write(buffer.bytes.subarray(written - window.start, end - window.start), buffer);
        window.written += count;
        unwanted = window.written < end;
        notify();
      } else if (isFull(window)) {
        open.shift();
        buffer.release();
        wake.resolve();
        wake = Promise.withResolvers();
      } else {
        return;
      }
    }
  }

  /** Until there is enough, or nothing more has come for a while. */
  async function gather(window: Window): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, GATHER);
    taken = () => (ended || isEnough(window)) && resolve();
    await promise;
    clearTimeout(timer);
    taken = undefined;
  }

  async function room(): Promise<Window> {
    let window = open.at(-1);
    if (window !== undefined && !isFull(window)) return window;
    while (open.length > 1 && writing !== undefined) await Promise.race([wake.promise, writing]);
    window = windows.open(position);
    open.push(window);
    return window;
  }

  return {
    position: () => position,
    async take(chunk) {
      for (let done = 0; done < chunk.length && !unwanted;) {
        const window = await room();
        const { bytes } = window.buffer;
        const count = Math.min(bytes.length - (window.end - window.start), chunk.length - done);
        Buffer.from(chunk.buffer, chunk.byteOffset + done, count).copy(bytes, window.end - window.start); // `set` is slow on shared memory
        window.end += count;
        position += count;
        done += count;
        taken?.();
        writing ??= drain().finally(() => (writing = undefined));
      }
    },
    async end() {
      ended = true;
      taken?.();
      while (writing !== undefined) await writing;
      for (const { buffer } of open.splice(0)) buffer.release();
    },
  };
}

function isEnough(window: Window): boolean {
  return window.end - window.written >= ENOUGH || isFull(window);
}

function isFull({ start, end, buffer }: Window): boolean {
  return end - start === buffer.bytes.length;
}
