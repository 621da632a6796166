import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Collects all garbage at once, which takes some 20 ms. This frees memory that only the start has
 *  needed, and V8 sets the heap size at which the next full collection begins.
 *  @param flavor - 'last-resort' also drops what V8 can make again, such as compiled code */
export function collectGarbage(flavor: 'regular' | 'last-resort' = 'regular'): void {
  setFlagsFromString('--expose-gc'); // for contexts made from here on
  (runInNewContext('gc') as NodeJS.GCFunction)({ type: 'major', execution: 'sync', flavor });
}
