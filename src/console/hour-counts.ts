/** Counters of the last hour. */
export interface HourCounts<Name extends string> {
  count(this: void, name: Name, by: number): void;
  /** The counts of a moment, to be added to. @param at ms since the epoch */
  at(this: void, at: number): Record<Name, number>;
  read(this: void): Record<Name, number>;
}

const STEP_MS = 300_000;
const STEPS = 12;

/** Counts in steps of five minutes, so the hour is up to five minutes longer. @param now ms since
 *  the epoch */
export function createHourCounts<Name extends string>(names: readonly Name[], now: () => number): HourCounts<Name> {
  const steps = new Map<number, Record<Name, number>>();
  let latest: Record<Name, number> | undefined;
  let latestIndex = -1;

  const empty = () => Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>;
  function forgetOld(index: number): void {
    for (const old of steps.keys()) if (old <= index - STEPS) steps.delete(old);
  }

  function at(time: number): Record<Name, number> {
    const index = Math.floor(time / STEP_MS);
    if (latest !== undefined && latestIndex === index) return latest;
    forgetOld(index);
    const step = steps.get(index) ?? empty();
    steps.set(index, step);
    [latest, latestIndex] = [step, index];
    return step;
  }

  return {
    at,
    count(name, by) {
      at(now())[name] += by;
    },
    read() {
      forgetOld(Math.floor(now() / STEP_MS));
      const sums = empty();
      for (const step of steps.values()) for (const name of names) sums[name] += step[name];
      return sums;
    },
  };
}
