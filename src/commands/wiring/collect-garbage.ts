import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Collects all garbage at once, which takes some 20 ms: the memory that the start has used is free
 *  then, and V8 computes from what is left how large the heap may become before the next full
 *  collection.
 *  @param flavor - 'last-resort' also drops what V8 can make again, such as compiled code */
export function collectGarbage(flavor: 'regular' | 'last-resort' = 'regular'): void {
  setFlagsFromString('--expose-gc'); // for contexts made from here on
  (runInNewContext('gc') as NodeJS.GCFunction)({ type: 'major', execution: 'sync', flavor });
}
