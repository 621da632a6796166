import { once } from 'node:events';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { isFields, type Fields } from '../../../io/untrusted.ts';
import { ClashError } from '../document.ts';
import type { Document } from './compose.ts';

const TIME_LIMIT_MS = 60_000;
/** The worker's heap in MiB: hundreds of times what a usual subscription needs. */
const MEMORY_LIMIT_MIB = 256;

export interface YamlContent {
  /** Undefined: the text is YAML, but not a map. */
  document: Fields | undefined;
  /** Lines, counted from 1, of keys that occur a second time in their map; the last one counts. */
  repeated: number[];
}

export type YamlAnswer = Document | { problem: string };

/** Reads YAML from an untrusted source as mihomo does, in a separate thread: megabytes take
 *  seconds, and a document that exhausts memory or never ends stops that thread alone.
 *  @throws ClashError: the text is not valid YAML, or too much of it; the message does not quote
 *  the text */
export async function parseYaml(text: string): Promise<YamlContent> {
  // Its environment names the compile cache: without that it would strip types for 40 ms.
  const worker = new Worker(new URL(`./yaml-worker${extname(import.meta.filename)}`, import.meta.url), {
    workerData: text,
    resourceLimits: { maxOldGenerationSizeMb: MEMORY_LIMIT_MIB, maxYoungGenerationSizeMb: 32 },
  });
  try {
    const [answer] = (await once(worker, 'message', { signal: AbortSignal.timeout(TIME_LIMIT_MS) })) as [YamlAnswer];
    if ('problem' in answer) throw new ClashError(answer.problem);
    return { document: isFields(answer.value) ? answer.value : undefined, repeated: answer.repeated };
  } catch (cause) {
    if (cause instanceof ClashError) throw cause;
    throw new ClashError('it takes too much time or memory to read', { cause });
  } finally {
    await worker.terminate();
  }
}
