import { settled } from './settled.ts';

/** Runs `work` once for all who ask for the same key while it runs. It goes on when those who wait leave; `timeout` (ms) ends
 *  it. */
export function createFlights<Value>(timeout: number) {
  const running = new Map<string, Promise<Value>>();
  return function share(key: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<Value>): Promise<Value> {
    let flight = running.get(key);
    if (flight === undefined) {
      flight = work(AbortSignal.timeout(timeout)).finally(() => running.delete(key));
      flight.catch(() => undefined); // who waits is told; everybody may have left
      running.set(key, flight);
    }
    return settled(flight, signal);
  };
}
