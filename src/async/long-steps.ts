import { setImmediate as turn } from 'node:timers/promises';

/** Runs `work`, which keeps the event loop busy for some milliseconds, when every such step before it has run, and other events have been
 *  handled in between. @throws what `work` throws */
export type LongSteps = <Result>(work: () => Result) => Promise<Result>;

/** However many long steps come due at the same time, everybody else waits for one of them at most. */
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

/** Runs `work`, which parses a document of `bytes`: at once, or as a long step. @throws what `work` throws */
export async function parseInTurn<Result>(bytes: number, work: () => Result): Promise<Result> {
  return bytes <= PARSED_AT_ONCE_BYTES ? work() : longStep(work);
}
