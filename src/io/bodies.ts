/** `body` without its first bytes. */
export async function* skipBytes(body: AsyncIterable<Uint8Array>, bytes: number): AsyncGenerator<Uint8Array> {
  let left = bytes;
  for await (const chunk of body) {
    if (left < chunk.length) yield left === 0 ? chunk : chunk.subarray(left);
    left = Math.max(0, left - chunk.length);
  }
}

/** `body`, whose reader lets `onSilence` know each time it has waited for a chunk for so many milliseconds more; what that returns is
 *  called when it need not know any longer. */
export function withSilence(body: AsyncIterable<Uint8Array>, milliseconds: number, onSilence: () => () => void): AsyncIterable<Uint8Array> {
  const inner = body[Symbol.asyncIterator]();
  const iterator: AsyncIterator<Uint8Array> = {
    async next() {
      let over: (() => void) | undefined;
      const timer = setInterval(() => {
        over?.();
        over = onSilence();
      }, milliseconds);
      try {
        return await inner.next();
      } finally {
        clearInterval(timer);
        over?.();
      }
    },
    async return() {
      await inner.return?.();
      return { done: true, value: undefined };
    },
  };
  return { [Symbol.asyncIterator]: () => iterator };
}
