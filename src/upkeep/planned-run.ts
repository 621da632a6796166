/** When this process will next do periodic work, for display. */
export interface PlannedRun {
  /** Undefined: the work is running, or is not planned. */
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
