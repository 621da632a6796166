import { OciError } from '../oci/error.ts';
import { abandonUnwanted, type Callers } from './callers.ts';

export interface SingleFlightOptions {
  /** How long the work may take, in ms. */
  timeoutMs: number;
  /** How long the work continues after its last caller has left, in ms. By default, until the
   *  timeout. */
  lingerMs?: number;
}

/** Runs `work`, or joins the call that already runs for `key`; waits no longer than `signal`
 *  allows.
 *  @throws what `work` throws; the signal's reason; OciError UNAVAILABLE (the timeout is over) */
export type SingleFlight<Value> = (key: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<Value>) => Promise<Value>;

interface Flight<Value> {
  answer: Promise<Value>;
  callers: Callers;
}

/** Runs one piece of work per key at a time, shared by all callers that ask for the key while it
 *  runs. Callers may leave: the work continues for the others, and for `lingerMs` after the last
 *  caller has left. */
export function singleFlight<Value>({ timeoutMs, lingerMs = Infinity }: SingleFlightOptions): SingleFlight<Value> {
  const running = new Map<string, Flight<Value>>();
  const createCallers = abandonUnwanted({ lingerMs });

  async function run(work: (signal: AbortSignal) => Promise<Value>, stop: AbortController): Promise<Value> {
    const late = () => stop.abort(new OciError('UNAVAILABLE', 'upstream takes too long to answer', { origin: 'upstream' }));
    const timer = setTimeout(late, timeoutMs);
    try {
      return await work(stop.signal);
    } finally {
      clearTimeout(timer);
    }
  }

  function start(key: string, work: (signal: AbortSignal) => Promise<Value>): Flight<Value> {
    const remove = (): void => {
      if (running.get(key) === flight) running.delete(key); // a caller that comes now starts again
    };
    const callers = createCallers(remove);
    const flight: Flight<Value> = { answer: run(work, callers.stop), callers };
    const end = (): void => {
      callers.end();
      remove();
    };
    flight.answer.then(end, end); // callers get the error; there may be none left
    running.set(key, flight);
    return flight;
  }

  return async function share(key, signal, work) {
    signal.throwIfAborted();
    const { answer, callers } = running.get(key) ?? start(key, work);
    return callers.wait(answer, signal);
  };
}
