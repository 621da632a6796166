export interface BodySource {
  /** The next chunk, or undefined at the end. Called once at a time. */
  pull(): Promise<Uint8Array | undefined>;
  /** Frees what the body holds. Called once: at the end, on a failure, on `return()`, or when the signal is aborted; then
   *  perhaps while a pull runs. */
  close(): Promise<void>;
}

/** A body that frees what it holds, also when nobody ever asked for its first chunk: an async generator's `finally` does
 *  not run in that case. */
export function createBody(source: BodySource, signal: AbortSignal): AsyncIterable<Uint8Array> {
  let open = true;
  const finish = async (): Promise<void> => {
    if (!open) return;
    open = false;
    signal.removeEventListener('abort', abort);
    await source.close();
  };
  // A failure to close after an abort concerns nobody any more.
  const abort = (): void => void finish().catch(() => undefined);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();

  const iterator: AsyncIterator<Uint8Array, undefined> = {
    async next() {
      signal.throwIfAborted();
      if (!open) return { done: true, value: undefined };
      let chunk: Uint8Array | undefined;
      try {
        chunk = await source.pull();
      } catch (error) {
        await finish();
        signal.throwIfAborted();
        throw error;
      }
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
  return { [Symbol.asyncIterator]: () => iterator };
}
