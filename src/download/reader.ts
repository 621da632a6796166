import type { FileHandle } from 'node:fs/promises';
import { createBody } from '../io/body.ts';
import { withFileSlices } from '../io/file-slice.ts';
import type { Body } from '../oci/registry.ts';
import { createSpoolReader } from './spool/spool-reader.ts';
import type { Windows } from './spool/recent-chunks.ts';

export interface ReaderOptions {
  spool: FileHandle;
  windows: Windows;
  /** Where the reader begins. */
  from: number;
  /** Where it ends; undefined while the size is unknown. */
  end(this: void): number | undefined;
  /** Waits until the byte at `position` may be read from the spool, and returns how far; undefined: the spool gets no more. */
  reach(this: void, position: number): Promise<number | undefined>;
  /** The bytes from `position` on, which the spool will never have. */
  beyond(this: void, position: number): AsyncGenerator<Uint8Array>;
  /** The reader's body has been closed. */
  closed(this: void): void;
}

/** One reader's body of a spool file that is still being written. */
export function createReader(options: ReaderOptions, signal: AbortSignal): Body {
  const { spool, from, end, reach, beyond, closed } = options;
  const reader = createSpoolReader(spool, options.windows);
  let position = from;
  let rest: AsyncGenerator<Uint8Array> | undefined;
  let open = true;
  let whole = false;

  /** How far the spool can be read now; undefined: no further. */
  async function ahead(): Promise<number | undefined> {
    const limit = open && rest === undefined ? await reach(position) : undefined;
    return open ? limit : undefined;
  }

  async function pull(): Promise<Uint8Array | undefined> {
    const limit = await ahead();
    if (limit !== undefined) {
      const chunk = await reader.read(position, limit, end() ?? Infinity);
      position += chunk.length;
      return chunk;
    }
    if (open && position < (end() ?? Infinity)) rest ??= beyond(position);
    const step = await rest?.next();
    if (step?.done === false) return step.value;
    whole = rest === undefined;
    return undefined;
  }

  async function close(): Promise<void> {
    open = false;
    reader.close(whole);
    closed();
    await rest?.return(undefined);
  }

  return withFileSlices(createBody({ pull, close }, signal), async (taken) => {
    position += taken;
    const limit = await ahead();
    return limit === undefined ? undefined : { file: spool, position, length: limit - position };
  });
}
