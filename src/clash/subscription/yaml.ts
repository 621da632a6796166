import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { ClashError } from './document.ts';
import { isFields, type Fields } from '../../io/untrusted.ts';

/** Milliseconds. */
const TIME_LIMIT = 60_000;
/** MiB of the worker's heap: some hundred times a usual subscription. */
const MEMORY_LIMIT = 256;

/** Reads YAML that comes from elsewhere, in a thread of its own: megabytes of it take seconds, and bombs, however they are
 *  made, end that thread alone. Gives undefined for what is no map.
 *  @throws ClashError: no YAML, or too much of it; the parser's own words, which quote the document, stay out */
export async function parseYaml(text: string): Promise<Fields | undefined> {
  const worker = new Worker(new URL('./yaml-worker.ts', import.meta.url), {
    workerData: text,
    env: {},
    resourceLimits: { maxOldGenerationSizeMb: MEMORY_LIMIT, maxYoungGenerationSizeMb: 32 },
  });
  try {
    const [answer] = (await once(worker, 'message', { signal: AbortSignal.timeout(TIME_LIMIT) })) as [YamlAnswer];
    if ('problem' in answer) throw new ClashError(answer.problem);
    return isFields(answer.document) ? answer.document : undefined;
  } catch (cause) {
    if (cause instanceof ClashError) throw cause;
    throw new ClashError('it takes too much time or memory to read', { cause });
  } finally {
    await worker.terminate();
  }
}

export type YamlAnswer = { document: unknown } | { problem: string };
