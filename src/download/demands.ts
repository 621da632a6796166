import type { ByteRanges } from './spool/byte-ranges.ts';

/** How long readers' demands are gathered before connections are assigned to them, in ms. */
const GATHER_MS = 20;

/** The positions at which readers wait. */
export interface Demands {
  /** A reader waits for the byte at `position`. Readers that start together are assigned
   *  connections together: each range then ends where the next one begins, so that requests are not
   *  cut later. */
  demand(this: void, reader: object, position: number): void;
  /** The reader no longer waits. */
  release(this: void, reader: object): void;
  /** The positions that readers have asked for. */
  positions(): Iterable<number>;
  /** The positions before `size` whose bytes have not arrived, last first. */
  awaited(size: number): number[];
  close(): void;
}

/** @param assign called when demands have been gathered */
export function createDemands(have: ByteRanges, assign: () => void): Demands {
  const demands = new Map<object, number>();
  let assigning: NodeJS.Timeout | undefined;
  return {
    demand(reader, position) {
      if (demands.get(reader) === position) return;
      demands.set(reader, position);
      assigning ??= setTimeout(() => {
        assigning = undefined;
        assign();
      }, GATHER_MS);
    },
    release: (reader) => void demands.delete(reader),
    positions: () => demands.values(),
    awaited(size) {
      // Readers no longer wait for bytes that have arrived in the meantime.
      const missing = [...demands.values()].map((position) => have.endFrom(position)).filter((position) => position < size);
      return [...new Set(missing)].sort((one, other) => other - one);
    },
    close: () => clearTimeout(assigning),
  };
}
