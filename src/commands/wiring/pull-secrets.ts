import { setTimeout as delay } from 'node:timers/promises';
import { createSecret } from '../../config/secret.ts';
import type { PullSecretsConfig } from '../../config/schema.ts';
import { parsePrivateName } from '../../oci/private-name.ts';
import type { Repository } from '../../oci/reference.ts';
import type { Kubernetes } from '../../kubernetes/client.ts';
import { createPullSecrets, type PullSecrets, type PullSecretsOptions } from '../../pull-secrets/pull-secrets.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import type { SecretLookup } from '../../webhook/pod-secrets.ts';

export interface PullSecretsContext extends Pick<PullSecretsOptions, 'keepsPasswords' | 'log' | 'signal'> {
  kubernetes: Kubernetes;
  metrics: Metrics;
}

/** The pull secrets that this process reads by its configuration. @throws Error: the key is too
 *  short; OciError UNAVAILABLE: it cannot be read */
export async function openPullSecrets(
  { namespaces, allNamespaces, keyFile }: PullSecretsConfig,
  { kubernetes, metrics, ...options }: PullSecretsContext,
): Promise<PullSecrets> {
  const secrets = await createPullSecrets(kubernetes, {
    ...options,
    namespaces: allNamespaces ? 'all' : namespaces,
    key: createSecret({ file: keyFile }),
  });
  createPullSecretsMetrics(metrics, secrets.counts);
  return secrets;
}

/** The metrics of the pull secrets. */
export function createPullSecretsMetrics(metrics: Metrics, counts: PullSecrets['counts']): void {
  metrics.table('pull_secrets', 'Pull secrets that are known, by whether they can be used.', ['state'], () => {
    const { usable, unusable } = counts();
    return [
      { labels: { state: 'usable' }, value: usable },
      { labels: { state: 'unusable' }, value: unusable },
    ];
  });
  metrics.watch(
    'pull_secret_watches_failing',
    'Watches of Secrets that currently fail: forbidden, or without a response.',
    () => counts().failing,
  );
}

/** How long to wait for the first list. */
const PATIENCE_MS = 15_000;

/** Waits for the first list, but not for long. */
export async function whenListed(secrets: PullSecrets): Promise<void> {
  const listed = new AbortController();
  await Promise.race([secrets.complete, delay(PATIENCE_MS, undefined, { signal: listed.signal }).catch(() => undefined)]);
  listed.abort();
}

/** @returns a function that says whether a repository was read only with pull secrets that have
 *  been deleted, so that no pod can name it any more. It returns false while Secrets may be
 *  unknown */
export function isAbandonedBy({
  isCurrent,
  credential,
}: Pick<PullSecrets, 'isCurrent' | 'credential'>): (repository: Repository) => boolean {
  return (repository) => isCurrent() && (parsePrivateName(repository)?.ids.every((id) => credential(id) === undefined) ?? false);
}

/** Waits a short time for the first list. @returns the function by which the webhook's policy looks
 *  up the secrets of a pod */
export async function lookupIn(secrets: PullSecrets): Promise<SecretLookup> {
  await whenListed(secrets);
  return (namespace, names) => (secrets.reads(namespace) ? names.map((name) => secrets.find(namespace, name)) : undefined);
}
