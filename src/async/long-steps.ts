import { setImmediate as turn } from 'node:timers/promises';

/** Runs `work`, which blocks the event loop for some milliseconds, after all such steps before it.
 *  Other events are handled between two steps. @throws what `work` throws */
export type LongSteps = <Result>(work: () => Result) => Promise<Result>;

/** However many long steps are due at the same time, other work waits for at most one of them. */
export function createLongSteps(): LongSteps {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const result = last.then(() => turn()).then(work);
    last = result.catch(() => undefined); // its caller gets the error
    return result;
  };
}

/** For the whole process, which has one event loop. */
const longStep = createLongSteps();

/** Parsed in a millisecond or two. */
const PARSED_AT_ONCE_BYTES = 2 ** 18;

/** Runs `work`, which parses a document of `bytes`: at once, or as a long step. @throws what `work`
 *  throws */
export async function parseInTurn<Result>(bytes: number, work: () => Result): Promise<Result> {
  return bytes <= PARSED_AT_ONCE_BYTES ? work() : longStep(work);
}
