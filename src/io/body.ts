import type { Body } from '../oci/registry.ts';

export interface BodySource {
  /** The next chunk, or undefined at the end. Called once at a time. */
  pull(): Promise<Uint8Array | undefined>;
  /** Frees what the body holds. Called once: at the end, after a failure, by `return()`, or when
   *  the signal is aborted (`aborted`). In the last case a pull may still be running, and the
   *  chunks returned last may still be in use. */
  close(aborted: boolean): Promise<void>;
}

export interface BodyHooks {
  /** Called with the size of each chunk before the reader sees it, and with the number of bytes that
   *  were sent without being read (slice.ts). */
  onBytes?(this: void, count: number): void;
  /** The last chunk has been returned. An error that it throws becomes the body's failure. */
  onEnd?(this: void): void;
  /** Returns the error to throw instead of `error`. */
  onError?(this: void, error: unknown): unknown;
  /** Called once, whichever way the body ends, before it frees what it holds. */
  onClose?(this: void): void;
}

interface BodyState {
  open: boolean;
  hooks: BodyHooks[];
}

const NEVER = new AbortController().signal;
const states = new WeakMap<object, BodyState>();

/** Creates a body that frees its resources even if its first chunk is never requested (an async
 *  generator's `finally` does not run in that case). After `signal` is aborted, `next` throws the
 *  signal's reason. */
export function createBody(source: BodySource, signal: AbortSignal): Body {
  const state: BodyState = { open: true, hooks: [] };
  const finish = async (aborted = false): Promise<void> => {
    if (!state.open) return;
    state.open = false;
    signal.removeEventListener('abort', abort);
    for (const { onClose } of state.hooks) onClose?.();
    await source.close(aborted);
  };
  // After an abort no caller waits for the result of closing.
  const abort = (): void => void finish(true).catch(() => undefined);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();

  async function pull(): Promise<Uint8Array | undefined> {
    try {
      const chunk = await source.pull();
      if (chunk === undefined) for (const { onEnd } of state.hooks) onEnd?.();
      else for (const { onBytes } of state.hooks) onBytes?.(chunk.length);
      return chunk;
    } catch (thrown) {
      let error: unknown = thrown;
      for (const { onError } of state.hooks) if (onError !== undefined) error = onError(error);
      await finish();
      signal.throwIfAborted();
      throw error;
    }
  }

  const iterator: AsyncIterator<Uint8Array> = {
    async next() {
      signal.throwIfAborted();
      if (!state.open) return { done: true, value: undefined };
      const chunk = await pull();
      signal.throwIfAborted();
      if (chunk !== undefined) return { done: false, value: chunk };
      await finish();
      return { done: true, value: undefined };
    },
    async return() {
      await finish();
      return { done: true, value: undefined };
    },
  };
  const body: Body = { [Symbol.asyncIterator]: () => iterator };
  states.set(body, state);
  return body;
}

/** Adds hooks to a body that has not been read yet. A body made by `createBody` is returned itself:
 *  no second iterator, no second abort listener, and it keeps its slices (slice.ts).
 *  Any other iterable is wrapped in one. Hooks run in the order in which they were added. */
export function mapBody(body: Body, hooks: BodyHooks): Body {
  const state = states.get(body);
  if (state === undefined) return mapBody(createBody(iterableSource(body), NEVER), hooks);
  state.hooks.push(hooks);
  if (!state.open) hooks.onClose?.();
  return body;
}

/** A body may take hours to arrive, and reporting every chunk would cost more than it is worth. */
const REPORT_EVERY_MS = 1000;

/** Reports the bytes of a body while it is read: about once a second, and at its end. */
export function countBytes(body: Body, report: (bytes: number) => void): Body {
  let unreported = 0;
  let reportedAt = performance.now();
  const flush = (): void => {
    if (unreported > 0) report(unreported);
    unreported = 0;
  };
  return mapBody(body, {
    onBytes(count) {
      unreported += count;
      const now = performance.now();
      if (now - reportedAt < REPORT_EVERY_MS) return;
      reportedAt = now;
      flush();
    },
    onClose: flush,
  });
}

/** Calls the hooks of a body for bytes that were sent without being read. */
export function passBytes(body: object, count: number): void {
  for (const { onBytes } of states.get(body)?.hooks ?? []) onBytes?.(count);
}

/** An async iterable as the source of a body. */
export function iterableSource(iterable: Body): BodySource {
  const iterator = iterable[Symbol.asyncIterator]();
  return {
    pull: async () => (await iterator.next()).value as Uint8Array | undefined,
    async close() {
      await iterator.return?.();
    },
  };
}

/** Reads a body to its end. Returns undefined, and closes the body, if it has more than `maxBytes`.
 *  @throws what the body throws */
export async function readAll(body: Body, maxBytes: number): Promise<Buffer | undefined> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) return undefined;
    chunks.push(Buffer.from(chunk)); // a chunk is valid only until the second `next` after it
  }
  return Buffer.concat(chunks);
}

/** Closes a body without reading it. */
export async function discardBody(body: Body): Promise<void> {
  await body[Symbol.asyncIterator]().return?.();
}

/** `body` without its first `bytes` bytes; itself if that is none. */
export function skipBytes(body: Body, bytes: number): Body {
  return bytes === 0 ? body : skipFirst(body, bytes);
}

async function* skipFirst(body: Body, bytes: number): AsyncGenerator<Uint8Array> {
  let left = bytes;
  for await (const chunk of body) {
    if (left < chunk.length) yield left === 0 ? chunk : chunk.subarray(left);
    left = Math.max(0, left - chunk.length);
  }
}

/** `body`, calling `onIdle` each time its reader has waited `milliseconds` more for the next chunk.
 *  What `onIdle` returns is called when the wait is over or `onIdle` is about to be called
 *  again. */
export async function* withIdleCheck(body: Body, milliseconds: number, onIdle: () => () => void): AsyncGenerator<Uint8Array> {
  const iterator = body[Symbol.asyncIterator]();
  async function next(): Promise<IteratorResult<Uint8Array>> {
    let over: (() => void) | undefined;
    const timer = setInterval(() => {
      over?.();
      over = onIdle();
    }, milliseconds);
    try {
      return await iterator.next();
    } finally {
      clearInterval(timer);
      over?.();
    }
  }
  let ended = false;
  try {
    for (let step = await next(); step.done !== true; step = await next()) yield step.value;
    ended = true;
  } finally {
    if (!ended) await iterator.return?.();
  }
}
