import type { ByteRange } from '../oci/range.ts';
import type { Blob } from '../oci/registry.ts';

/** What no response gets before the digest has agreed, in bytes from the blob's end (promise 3). */
export const WITHHELD = 64 * 1024;

/** Opens the blob, or a part of it; a source that cannot do ranges answers with the whole (`range` undefined). */
export type FillSource = (range: ByteRange | undefined, signal: AbortSignal) => Promise<Blob>;
