import { setTimeout as delay } from 'node:timers/promises';

/** Waits until `condition` holds, looking every 100 ms.
 *  @param what - the condition, as a sentence
 *  @throws Error: it does not hold within `limitMs`, by default three minutes, since the
 *  machine may be busy */
export async function until(condition: () => Promise<boolean> | boolean, what: string, limitMs = 180_000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`not within ${limitMs / 1000} s: ${what}`);
    await delay(100);
  }
}
