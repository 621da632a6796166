import { setTimeout as delay } from 'node:timers/promises';
import type { Body } from '../oci/registry.ts';
import { createBody, iterableSource } from './body.ts';
import { sliceOf, withSlices } from './slice.ts';

/** A rate that several bodies share. */
export interface Throttle {
  /** `body` at the shared rate; it stays sendable as a file. */
  slow(this: void, body: Body, signal: AbortSignal): Body;
}

/** How many ms of the rate may be sent at once. */
const BURST_MS = 100;

/** @param bytesPerSecond 0: without a limit */
export function createThrottle(bytesPerSecond: number): Throttle {
  /** When the bytes sent so far are paid for, on the monotonic clock, in ms. */
  let paidAt = 0;

  async function pay(bytes: number, signal: AbortSignal): Promise<void> {
    const now = performance.now();
    paidAt = Math.max(paidAt, now) + (1000 * bytes) / bytesPerSecond;
    if (paidAt - now > BURST_MS) await delay(paidAt - now, undefined, { signal });
  }

  if (bytesPerSecond === 0) return { slow: (body) => body };
  return {
    slow(body, signal) {
      const source = iterableSource(body);
      const next = sliceOf(body);
      const slowed = createBody(
        {
          async pull() {
            const chunk = await source.pull();
            if (chunk !== undefined) await pay(chunk.length, signal);
            return chunk;
          },
          close: (aborted) => source.close(aborted),
        },
        signal,
      );
      if (next === undefined) return slowed;
      return withSlices(slowed, async (taken) => {
        if (taken > 0) await pay(taken, signal);
        return next(taken);
      });
    },
  };
}
