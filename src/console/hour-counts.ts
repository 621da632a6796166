/** Counters of the last hour. */
export interface HourCounts<Name extends string> {
  count(this: void, name: Name, by: number): void;
  read(this: void): Record<Name, number>;
}

const STEP_MS = 300_000;
const STEPS = 12;

/** Counts in steps of five minutes, so the hour is up to five minutes longer. @param now ms since
 *  the epoch */
export function createHourCounts<Name extends string>(names: readonly Name[], now: () => number): HourCounts<Name> {
  const steps = new Map<number, Record<Name, number>>();

  const empty = () => Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>;
  function forgetOld(index: number): void {
    for (const old of steps.keys()) if (old <= index - STEPS) steps.delete(old);
  }

  return {
    count(name, by) {
      const index = Math.floor(now() / STEP_MS);
      let step = steps.get(index);
      if (step === undefined) {
        forgetOld(index);
        steps.set(index, (step = empty()));
      }
      step[name] += by;
    },
    read() {
      forgetOld(Math.floor(now() / STEP_MS));
      const sums = empty();
      for (const step of steps.values()) for (const name of names) sums[name] += step[name];
      return sums;
    },
  };
}
