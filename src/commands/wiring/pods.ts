import { readFile } from 'node:fs/promises';
import { json } from 'node:stream/consumers';
import { fieldsOf, itemsOf, type Fields } from '../../io/untrusted.ts';
import { connectKubernetes } from '../../kubernetes/client.ts';
import { listPods } from '../../webhook/report.ts';

/** Lists every pod of the cluster. @throws OciError UNAVAILABLE, DENIED */
export async function askCluster(env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Fields[]> {
  const kubernetes = await connectKubernetes(env);
  try {
    return await listPods(kubernetes, signal);
  } finally {
    await kubernetes.close();
  }
}

/** Reads the output of `kubectl get pods -A -o json` from a file, or from stdin for `-`. */
export async function readPods(file: string, stdin: NodeJS.ReadStream): Promise<Fields[]> {
  const content: unknown = file === '-' ? await json(stdin) : JSON.parse(await readFile(file, 'utf8'));
  return itemsOf(fieldsOf(content)['items']);
}
