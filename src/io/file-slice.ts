import type { Body } from '../oci/registry.ts';

/** Bytes that come next in a body and lie in an open file. */
export interface FileSlice {
  file: { readonly fd: number };
  /** In the file, in bytes. */
  position: number;
  length: number;
}

/** Like a body's `next`, but returns where the next bytes lie in an open file, so that they can be
 *  sent with sendfile(2). `taken` is how many bytes of the slice returned last were sent (0 the
 *  first time). Returns undefined when the next bytes are not in a file, and at the end of the
 *  body: call `next` instead. The two may be mixed freely, but not run at the same time.
 *  @throws what `next` would throw; the caller closes the body then */
export type NextFileSlice = (taken: number) => Promise<FileSlice | undefined>;

const slices = new WeakMap<Body, NextFileSlice>();

/** Makes `body` sendable as a file, and returns it. */
export function withFileSlices(body: Body, next: NextFileSlice): Body {
  slices.set(body, next);
  return body;
}

/** Undefined: this body never comes from a file. */
export function fileSliceOf(body: Body): NextFileSlice | undefined {
  return slices.get(body);
}
