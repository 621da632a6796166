/** When this process will do something next, for those who want to know. */
export interface PlannedRun {
  /** Undefined: it runs now, or is not planned. */
  at(this: void): Date | undefined;
  plan(this: void, at: Date | undefined): void;
}

export function createPlannedRun(): PlannedRun {
  let next: Date | undefined;
  return {
    at: () => next,
    plan(at) {
      next = at;
    },
  };
}
