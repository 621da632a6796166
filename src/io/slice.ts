import type { Body } from '../oci/registry.ts';
import { passBytes, type BodySource } from './body.ts';

/** Bytes that come next in a body and lie in an open file. */
export interface FileSlice {
  file: { readonly fd: number };
  /** In the file, in bytes. */
  position: number;
  length: number;
}

/** Bytes that come next in a body and arrive at a socket of this process. */
export interface SocketSlice {
  /** Moves some of them to the socket with this descriptor, without waiting. @returns how many; 0: none have arrived, or the other
   *  socket is full */
  moveTo(this: void, descriptor: number): number;
  /** How many there are at most. */
  length: number;
}

/** Like a body's `next`, but returns where the next bytes lie, so that the kernel can send them
 *  without this process reading them: by sendfile(2) from a file, by splice(2) from a socket.
 *  `taken` is how many bytes of the slice returned last were sent (0 the first time). Returns
 *  undefined when the next bytes must be read, and at the end of the body: call `next` instead. The
 *  two may be mixed freely, but not run at the same time.
 *  @throws what `next` would throw; the caller closes the body then */
export type NextSlice = (taken: number) => Promise<FileSlice | SocketSlice | undefined>;

const slices = new WeakMap<Body | BodySource, NextSlice>();

/** Makes `body` sendable without reading it, and returns it. */
export function withSlices<B extends Body | BodySource>(body: B, next: NextSlice | undefined): B {
  if (next !== undefined) slices.set(body, next);
  return body;
}

/** Undefined: this body has to be read. */
export function sliceOf(body: Body | BodySource): NextSlice | undefined {
  const next = slices.get(body);
  if (next === undefined) return undefined;
  return (taken) => {
    if (taken > 0) passBytes(body, taken);
    return next(taken);
  };
}
