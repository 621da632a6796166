import { OciError } from '../oci/error.ts';
import { settled } from './race-abort.ts';

/** Runs `work` once for all who ask for the same key while it runs. It goes on when those who wait leave; `timeout` (ms) ends
 *  it with OciError UNAVAILABLE. */
export function createFlights<Value>(timeout: number) {
  const running = new Map<string, Promise<Value>>();

  async function run(work: (signal: AbortSignal) => Promise<Value>): Promise<Value> {
    const limit = new AbortController();
    const late = () => limit.abort(new OciError('UNAVAILABLE', 'upstream takes too long to answer', { origin: 'upstream' }));
    const timer = setTimeout(late, timeout);
    try {
      return await work(limit.signal);
    } finally {
      clearTimeout(timer);
    }
  }

  return function share(key: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<Value>): Promise<Value> {
    let flight = running.get(key);
    if (flight === undefined) {
      flight = run(work).finally(() => running.delete(key));
      flight.catch(() => undefined); // who waits is told; everybody may have left
      running.set(key, flight);
    }
    return settled(flight, signal);
  };
}
