/** A process is busy if its event loop is active for more than this share of the time. */
const FULL = 0.75;
/** The shortest period over which the load is measured, in ms. */
const WATCHED = 40;

/** Tells whether this process itself is the bottleneck, by how busy its event loop has been since
 *  the previous call. */
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
