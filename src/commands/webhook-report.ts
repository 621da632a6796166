import { readFile } from 'node:fs/promises';
import { json } from 'node:stream/consumers';
import { renderTable } from './table.ts';
import { printableLines } from '../io/printable.ts';
import { fieldsOf, itemsOf, type Fields } from '../io/untrusted.ts';
import { connectKubernetes } from '../webhook/kubernetes.ts';
import { createPolicy } from '../webhook/policy.ts';
import { explain, listPods, reportPods } from '../webhook/report.ts';
import type { Host } from './command.ts';

export interface ReportOptions {
  /** JSON instead of a table. */
  json: boolean;
  /** Lists rewritten images instead of the others. */
  rewritten: boolean;
  /** A file with the output of `kubectl get pods -A -o json`; `-` is stdin. */
  pods?: string;
}

/** `kube-registry webhook report`: lists the images that are not rewritten, and why.
 *  @throws OciError UNAVAILABLE, DENIED: cannot list the pods of the cluster */
export async function webhookReport({ config, stop, stdout, stdin, env }: Host, options: ReportOptions): Promise<void> {
  const pods = options.pods === undefined ? await askCluster(env, stop) : await readPods(options.pods, stdin);
  const all = reportPods(pods, createPolicy(config.webhook, config.registry.upstreams, config.registry));
  const lines = all.filter(({ reason }) => (reason === 'rewritten') === options.rewritten);
  if (options.json) {
    stdout.write(`${printableLines(JSON.stringify(lines, undefined, 2))}\n`);
    return;
  }
  const rows = lines.map(({ namespace, pod, container, image, reason, original }) => [
    namespace,
    pod,
    container,
    image,
    options.rewritten ? (original ?? '') : explain(reason),
  ]);
  stdout.write(renderTable(['NAMESPACE', 'POD', 'CONTAINER', 'IMAGE', options.rewritten ? 'ORIGINAL' : 'WHY'], rows));
}

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
