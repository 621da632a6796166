/** `body`, which says once when it has been left: when it has ended, failed or was returned, or when the signal is aborted while
 *  nobody waits for a chunk. Then what it reads from may be closed. */
export function attended(body: AsyncGenerator<Uint8Array>, signal: AbortSignal, left: () => void): AsyncIterable<Uint8Array> {
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
    body.return(undefined).catch(() => undefined); // what it holds goes too
  };
  signal.addEventListener('abort', abort, { once: true });
  const iterator: AsyncIterator<Uint8Array, undefined> = {
    async next() {
      reading = true;
      try {
        const { value, done } = await body.next();
        if (done !== true) return { done: false, value };
        leave();
        return { done: true, value: undefined };
      } catch (error) {
        leave();
        throw error;
      } finally {
        reading = false;
        if (signal.aborted) leave();
      }
    },
    async return() {
      leave();
      await body.return(undefined);
      return { done: true, value: undefined };
    },
  };
  return { [Symbol.asyncIterator]: () => iterator };
}
