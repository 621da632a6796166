/** Choices that one seed repeats. */
export interface Chance {
  /** At least 0, less than 1. */
  next(): number;
  /** A whole number of [0, below). */
  below(below: number): number;
  /** True this often: 0.1 is one time in ten. */
  happens(share: number): boolean;
  /** @throws Error: there is none */
  pick<T>(from: readonly T[]): T;
}

/** mulberry32: small, and good enough to choose by. */
export function createChance(seed: number): Chance {
  let state = seed >>> 0;
  function next(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
  const below = (limit: number): number => Math.floor(next() * limit);
  return {
    next,
    below,
    happens: (share) => next() < share,
    pick(from) {
      if (from.length === 0) throw new Error('nothing to choose from');
      return from[below(from.length)] as (typeof from)[number];
    },
  };
}
