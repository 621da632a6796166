import type { Body } from '../oci/registry.ts';
import { createBody, iterableSource } from './body.ts';
import { sliceOf, withSlices, type NextSlice } from './slice.ts';

export interface ResumingBodyOptions {
  /** The position of the first byte. */
  start: number;
  /** Opens a body that begins at `position`. Undefined: nothing is left. */
  open(this: void, position: number): Promise<Body | undefined>;
  /** Called with the error of a body, or of `open`: the body continues at `position` when it
   *  resolves. @throws the error that ends the body */
  failed(this: void, cause: unknown, position: number): Promise<void>;
  signal: AbortSignal;
}

/** A body whose bytes come from several others, each from where the last one failed. */
export function resumingBody({ start, open, failed, signal }: ResumingBodyOptions): Body {
  let position = start;
  let nextSlice: NextSlice | undefined;

  async function* read(): AsyncGenerator<Uint8Array> {
    for (;;) {
      try {
        const body = await open(position);
        if (body === undefined) return;
        nextSlice = sliceOf(body);
        for await (const chunk of body) {
          position += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        nextSlice = undefined;
        await failed(error, position);
      }
    }
  }

  return withSlices(createBody(iterableSource(read()), signal), async (taken) => {
    position += taken;
    try {
      return await nextSlice?.(taken);
    } catch {
      nextSlice = undefined; // the body throws it again when it is read
      return undefined;
    }
  });
}
