import { randomUUID } from 'node:crypto';
import { renderTable } from './table.ts';
import { askCluster, readPods } from './wiring/pods.ts';
import { lookupIn } from './wiring/pull-secrets.ts';
import { printableLines } from '../io/printable.ts';
import { readsPullSecrets } from '../config/schema.ts';
import { connectKubernetes } from '../kubernetes/client.ts';
import { isOciError } from '../oci/error.ts';
import { createPullSecrets } from '../pull-secrets/pull-secrets.ts';
import type { SecretLookup } from '../webhook/pod-secrets.ts';
import { createPolicy } from '../webhook/policy.ts';
import { explain, reportPods } from '../webhook/report.ts';
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
export async function webhookReport(host: Host, options: ReportOptions): Promise<void> {
  const { config, stop, stdout, stdin, env } = host;
  const pods = options.pods === undefined ? await askCluster(env, stop) : await readPods(options.pods, stdin);
  const { upstreams, hosted, otherHosts } = config.registry;
  const all = reportPods(pods, createPolicy(config.webhook, upstreams, { hosted, otherHosts, secretsOf: await readSecrets(host) }));
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

/** The current pull secrets, if the webhook is configured to read any and this user is allowed
 *  to. */
async function readSecrets({ config, env, log, stop, stderr }: Host): Promise<SecretLookup> {
  const { namespaces, allNamespaces } = config.pullSecrets;
  if (!readsPullSecrets(config.pullSecrets)) return () => undefined;
  const done = new AbortController();
  try {
    const kubernetes = await connectKubernetes(env);
    const secrets = await createPullSecrets(kubernetes, {
      namespaces: allNamespaces ? 'all' : namespaces,
      key: () => Promise.resolve(randomUUID()), // a report shows no ids
      keepsPasswords: false,
      log: log.child({}, { level: 'silent' }),
      signal: AbortSignal.any([stop, done.signal]),
    });
    const secretsOf = await lookupIn(secrets);
    done.abort();
    await kubernetes.close();
    if (secrets.counts().failing > 0)
      stderr.write('kube-registry: some pull secrets cannot be read, so the report may be wrong for pods that use them\n');
    return secretsOf;
  } catch (error) {
    if (!isOciError(error)) throw error;
    stderr.write(`kube-registry: the pull secrets cannot be read, so the report may be wrong for pods that use them: ${error.message}\n`);
    return () => undefined;
  } finally {
    done.abort();
  }
}
