import type { Readable } from 'node:stream';
import type { Body, BodyIterator, FileStretch } from '../oci/registry.ts';

export interface BodySource {
  /** The next chunk, or undefined at the end. Called once at a time. */
  pull(): Promise<Uint8Array | undefined>;
  /** Of a `BodyIterator`. */
  stretch?(this: void, taken: number): Promise<FileStretch | undefined>;
  /** Frees what the body holds. Called once: at the end, on a failure, on `return()`, or when the signal is aborted, as `aborted` says; then
   *  perhaps while a pull runs, or while the chunks given last are still looked at. */
  close(aborted: boolean): Promise<void>;
}

/** A body that frees what it holds, also when nobody ever asked for its first chunk: an async generator's `finally` does
 *  not run in that case. */
export function createBody(source: BodySource, signal: AbortSignal): Body {
  let open = true;
  const finish = async (aborted = false): Promise<void> => {
    if (!open) return;
    open = false;
    signal.removeEventListener('abort', abort);
    await source.close(aborted);
  };
  // A failure to close after an abort concerns nobody any more.
  const abort = (): void => void finish(true).catch(() => undefined);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();

  const attempt = async <T>(work: () => Promise<T>): Promise<T> => {
    let result: T;
    try {
      result = await work();
    } catch (error) {
      await finish();
      signal.throwIfAborted();
      throw error;
    }
    signal.throwIfAborted();
    return result;
  };

  const { stretch } = source;
  const iterator: BodyIterator = {
    async next() {
      signal.throwIfAborted();
      if (!open) return { done: true, value: undefined };
      const chunk = await attempt(() => source.pull());
      if (chunk !== undefined) return { done: false, value: chunk };
      await finish();
      return { done: true, value: undefined };
    },
    async return() {
      await finish();
      return { done: true, value: undefined };
    },
  };
  if (stretch !== undefined) {
    iterator.stretch = async (taken) => {
      signal.throwIfAborted();
      return open ? attempt(() => stretch(taken)) : undefined;
    };
  }
  return { [Symbol.asyncIterator]: () => iterator };
}

/** What another body gives, for a body around it. */
export function innerSource(body: Body): BodySource {
  const iterator = body[Symbol.asyncIterator]();
  const { stretch } = iterator;
  return {
    pull: async () => (await iterator.next()).value as Uint8Array | undefined,
    ...(stretch === undefined ? {} : { stretch }),
    async close() {
      await iterator.return?.();
    },
  };
}

/** `source`, whose failures are what `failure` makes of them. */
export function failingWith(source: BodySource, failure: (error: unknown) => Error): BodySource {
  return {
    ...source,
    async pull() {
      try {
        return await source.pull();
      } catch (error) {
        throw failure(error);
      }
    },
  };
}

/** Where chunks of the network arrive, one at a time, and wait to be pulled. */
export interface Arrivals {
  arrive(this: void, chunk: Uint8Array): void;
  /** Nothing more comes: all has come, or `error` says why not. Only the first call counts. */
  conclude(this: void, error?: Error): void;
  /** Of a `BodySource`. */
  pull(this: void): Promise<Uint8Array | undefined>;
}

/** `flow` is paused whenever a chunk waits. The memory of a chunk is given back by hand once the chunk contract of `Blob.body` has
 *  expired. Left to the garbage collector, a gigabyte that is downloaded is a gigabyte of garbage that V8 barely sees: 64 downloads
 *  at once were measured to take 1.8 times as long, and 50 MB more. */
export function createArrivals(flow: { pause(): void; resume(): void }): Arrivals {
  const arrived: Uint8Array[] = [];
  let given: Uint8Array | undefined;
  let before: Uint8Array | undefined;
  let end: { error?: Error } | undefined;
  let wake: (() => void) | undefined;
  return {
    arrive(chunk) {
      arrived.push(chunk);
      flow.pause();
      wake?.();
    },
    conclude(error) {
      end ??= error === undefined ? {} : { error };
      wake?.();
    },
    async pull() {
      while (arrived.length === 0 && end === undefined) {
        flow.resume();
        // What is there already may arrive within that call.
        if (arrived.length === 0 && end === undefined) await new Promise<void>((resolve) => (wake = resolve));
      }
      const chunk = arrived.shift();
      if (chunk === undefined) {
        if (end?.error !== undefined) throw end.error;
        return undefined;
      }
      if (before !== undefined) freeMemory(before);
      before = given;
      given = chunk;
      if (arrived.length === 0 && end === undefined) flow.resume();
      return chunk;
    },
  };
}

/** What a stream of the network gives, chunk by chunk as it came: async iteration would copy what has gathered into one piece.
 *  Before the first pull the stream is left alone. */
export function streamSource(stream: Readable, failure: (error: unknown) => Error): BodySource {
  const { arrive, conclude, pull } = createArrivals(stream);
  const fail = (error: unknown) => conclude(failure(error));
  stream.on('error', fail); // also what comes when nobody reads yet, or any more

  function begin(): void {
    if (stream.destroyed) return fail(stream.errored ?? new Error('the connection was closed'));
    stream.on('data', arrive);
    stream.once('end', () => conclude());
    stream.once('close', () => fail(new Error('the connection was closed')));
  }

  let begun = false;
  return {
    pull() {
      if (!begun) begin();
      begun = true;
      return pull();
    },
    close() {
      stream.destroy();
      return Promise.resolve();
    },
  };
}

/** Of a chunk that has its memory to itself; an empty one may be anybody's. */
function freeMemory({ buffer, byteLength }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && byteLength > 0 && buffer.byteLength === byteLength) buffer.transfer(0);
}
