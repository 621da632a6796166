/** A set of byte positions, kept as disjoint, ascending, never adjacent ranges [start, end). */
export interface ByteRanges {
  add(start: number, end: number): void;
  /** The end of the range that holds `position`; `position` itself when none does. */
  endFrom(position: number): number;
  /** How many positions are in the set. */
  total(): number;
  /** All of them, ascending. */
  ranges(): [number, number][];
  /** The parts of [start, end) that are not in the set, ascending. */
  gaps(start: number, end: number): [number, number][];
}

export function createByteRanges(): ByteRanges {
  const all: [number, number][] = [];

  return {
    add(start, end) {
      if (start >= end) return;
      const first = search(all, start);
      let next = first;
      let merged: [number, number] = [start, end];
      for (; next < all.length && all[next]![0] <= end; next++) {
        merged = [Math.min(merged[0], all[next]![0]), Math.max(merged[1], all[next]![1])];
      }
      all.splice(first, next - first, merged);
    },

    endFrom(position) {
      const range = all[search(all, position + 1)];
      return range !== undefined && range[0] <= position ? range[1] : position;
    },

    total: () => all.reduce((sum, [start, end]) => sum + end - start, 0),
    ranges: () => all.map(([start, end]) => [start, end]),

    gaps(start, end) {
      const found: [number, number][] = [];
      let position = start;
      for (let index = search(all, start); position < end; index++) {
        const [from, to] = all[index] ?? [end, end];
        if (from > position) found.push([position, Math.min(from, end)]);
        position = Math.max(position, to);
      }
      return found;
    },
  };
}

/** The index of the first of the ascending ranges that ends at or after `position`. */
function search(all: readonly (readonly [number, number])[], position: number): number {
  let low = 0;
  let high = all.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (all[middle]![1] < position) low = middle + 1;
    else high = middle;
  }
  return low;
}
