import type { FileHandle } from 'node:fs/promises';
import type { BodyIterator } from '../oci/registry.ts';
import { createSpoolReader } from './spool/spool-reader.ts';
import type { Windows } from './spool/recent-chunks.ts';

export interface FollowOptions {
  spool: FileHandle;
  windows: Windows;
  /** Where the reader begins. */
  from: number;
  /** Where it ends; undefined while nobody knows. */
  end(this: void): number | undefined;
  /** Waits until something at a position is in the spool, and says how far; undefined: nothing more will be. */
  reach(this: void, position: number): Promise<number | undefined>;
  /** What comes from a position on that the spool will never have. */
  beyond(this: void, position: number): AsyncGenerator<Uint8Array>;
  /** The reader has left. */
  left(this: void): void;
}

/** One reader's way through a spool file that still grows. */
export function follow({ spool, windows, from, end, reach, beyond, left }: FollowOptions): BodyIterator {
  const reader = createSpoolReader(spool, windows);
  let position = from;
  let rest: AsyncGenerator<Uint8Array> | undefined;
  let open = true;

  function close(whole: boolean): void {
    if (!open) return;
    open = false;
    reader.close(whole);
    left();
  }

  /** How far it can read in the spool; undefined: no further. */
  async function ahead(): Promise<number | undefined> {
    return open && rest === undefined ? reach(position) : undefined;
  }

  /** Frees what is held when `read` fails. */
  async function attempt<T>(read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      close(false);
      throw error;
    }
  }

  async function next(): Promise<IteratorResult<Uint8Array, undefined>> {
    const limit = await ahead();
    if (limit !== undefined && open) {
      const value = await reader.read(position, limit, end() ?? Infinity);
      position += value.length;
      return { done: false, value };
    }
    if (open && position < (end() ?? Infinity)) rest ??= beyond(position);
    const step = await rest?.next();
    if (step?.done === false) return step;
    close(rest === undefined);
    return { done: true, value: undefined };
  }

  async function stretch(taken: number) {
    position += taken;
    const limit = await ahead();
    return limit === undefined || !open ? undefined : { file: spool, position, length: limit - position };
  }

  return {
    next: () => attempt(next),
    stretch: (taken) => attempt(() => stretch(taken)),
    async return() {
      close(false);
      await rest?.return(undefined);
      return { done: true, value: undefined };
    },
  };
}
