/** The share of its time that a process with its hands full is busy for. */
const FULL = 0.75;
/** How long a process is watched at least, in ms. */
const WATCHED = 40;

/** Tells whether this process itself is what its work waits for, by the time that its event loop had nothing to do since it was asked before. */
export function createEventLoopLoad(): () => boolean {
  let seen = performance.eventLoopUtilization();
  let full = false;
  return () => {
    const now = performance.eventLoopUtilization();
    const { active, idle, utilization } = performance.eventLoopUtilization(now, seen);
    if (active + idle < WATCHED) return full;
    seen = now;
    full = utilization > FULL;
    return full;
  };
}
