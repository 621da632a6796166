import type { Body, BodyIterator } from '../oci/registry.ts';

/** What `inner` gives, as a body that says once when it has been left: when it has ended, failed or was returned, or when the signal is aborted
 *  while nobody waits for what comes next. Then what it reads from may be closed. */
export function attended(inner: BodyIterator, signal: AbortSignal, left: () => void): Body {
  let reading = false;
  let gone = false;
  function leave(): void {
    if (gone) return;
    gone = true;
    signal.removeEventListener('abort', abort);
    left();
  }
  const abort = () => {
    if (reading) return;
    leave();
    inner.return?.().catch(() => undefined); // what it holds goes too
  };
  signal.addEventListener('abort', abort, { once: true });

  async function attend<T>(read: () => Promise<T>): Promise<T> {
    reading = true;
    try {
      return await read();
    } catch (error) {
      leave();
      throw error;
    } finally {
      reading = false;
      if (signal.aborted) leave();
    }
  }

  const { stretch } = inner;
  const iterator: BodyIterator = {
    async next() {
      const step = await attend(() => inner.next());
      if (step.done === true) leave();
      return step;
    },
    ...(stretch === undefined ? {} : { stretch: (taken) => attend(() => stretch(taken)) }),
    async return() {
      leave();
      await inner.return?.();
      return { done: true, value: undefined };
    },
  };
  return { [Symbol.asyncIterator]: () => iterator };
}
