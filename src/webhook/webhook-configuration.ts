import { setTimeout as delay } from 'node:timers/promises';
import { fieldsOf, itemsOf, textOf, textsOf, type Fields } from '../io/untrusted.ts';
import type { Log } from '../telemetry/log.ts';
import { mergeBundles } from './certificates.ts';
import { FIELD_MANAGER, type Kubernetes } from '../kubernetes/client.ts';

/** Namespaces about whose pods the API server does not ask, by their labels. The chart's template
 *  has the same list. */
export const NAMESPACE_EXPRESSIONS: readonly { key: string; operator: string; values: string[] }[] = [
  { key: 'kube-registry/rewrite', operator: 'NotIn', values: ['false'] },
  // Pods of these namespaces run on virtual nodes of Alibaba Cloud: ECI and ACS, and their
  // predecessors.
  { key: 'alibabacloud.com/eci', operator: 'NotIn', values: ['true'] },
  { key: 'alibabacloud.com/acs', operator: 'NotIn', values: ['true'] },
  { key: 'virtual-node-affinity-injection', operator: 'NotIn', values: ['enabled'] },
  // AKS adds these to every webhook; if they are already present, it does not change the
  // configuration.
  { key: 'control-plane', operator: 'NotIn', values: ['true'] },
  { key: 'kubernetes.azure.com/managedby', operator: 'NotIn', values: ['aks'] },
];
/** How many older authorities stay trusted: replicas may still serve certificates that they
 *  issued. */
const MAX_FORMER_AUTHORITIES = 2;

export interface ConfigurationOptions {
  /** The name of the MutatingWebhookConfiguration. */
  name: string;
  /** PEM, one or several certificates, that API servers must trust. Undefined: caBundle is written
   *  by another program. */
  authorities?: string | undefined;
  /** The path to which API servers send reviews. */
  reviewPath: () => string;
  signal: AbortSignal;
}

/** Completes the MutatingWebhookConfiguration that calls this webhook: adds the authorities to
 *  every caBundle, the expressions that exclude namespaces by label to every namespaceSelector, and
 *  the path of reviews to every service.
 *
 *  Cloud providers (AKS) and administrators write to the first two fields. If the chart's template
 *  set them too, Helm 4 would refuse to upgrade because of the conflict, so the webhook applies
 *  them itself, under its own field manager, and keeps the entries of others.
 *  @returns `outdated` if somebody changed the configuration in between: try again
 *  @throws OciError DENIED, UNAVAILABLE */
export async function completeConfiguration(
  kubernetes: Kubernetes,
  { name, authorities, reviewPath, signal }: ConfigurationOptions,
): Promise<'missing' | 'unchanged' | 'changed' | 'outdated'> {
  const path = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${name}`;
  const configuration = fieldsOf(await kubernetes.get(path, signal));
  const webhooks = itemsOf(configuration['webhooks']);
  if (webhooks.length === 0) return 'missing';
  const bundles = webhooks.map(({ clientConfig }) => decode(fieldsOf(clientConfig)['caBundle']));
  const limit = countOf(authorities ?? '') + MAX_FORMER_AUTHORITIES;
  const caBundle = authorities === undefined ? undefined : mergeBundles([authorities, ...bundles], limit);
  const owned = ownedSelectors(configuration);
  const servicePath = reviewPath();
  const isComplete = webhooks.every(
    (webhook, index) =>
      (caBundle === undefined || bundles[index] === caBundle) &&
      missingFrom(webhook).length === 0 &&
      (!hasService(webhook) || serviceOf(webhook)['path'] === servicePath) &&
      owned.has(textOf(webhook['name']) ?? ''),
  );
  if (isComplete) return 'unchanged';
  const applied = webhooks.map((webhook, index) => {
    const bundle = caBundle ?? bundles[index] ?? '';
    const clientConfig = {
      ...(bundle === '' ? {} : { caBundle: Buffer.from(bundle).toString('base64') }),
      ...(hasService(webhook)
        ? { service: { name: serviceOf(webhook)['name'], namespace: serviceOf(webhook)['namespace'], path: servicePath } }
        : {}),
    };
    return {
      name: webhook['name'],
      namespaceSelector: withExpressions(webhook),
      ...(Object.keys(clientConfig).length === 0 ? {} : { clientConfig }),
    };
  });
  const metadata = { name, resourceVersion: fieldsOf(configuration['metadata'])['resourceVersion'] };
  const object = { apiVersion: 'admissionregistration.k8s.io/v1', kind: 'MutatingWebhookConfiguration', metadata, webhooks: applied };
  return (await kubernetes.apply(path, object, signal)) ? 'changed' : 'outdated';
}

/** The webhooks whose namespaceSelector this program has applied. When the chart stops applying a
 *  field that has no other owner, the field is removed. */
function ownedSelectors(configuration: Fields): ReadonlySet<string> {
  const managed = itemsOf(fieldsOf(configuration['metadata'])['managedFields']).filter(
    ({ manager, operation }) => manager === FIELD_MANAGER && operation === 'Apply',
  );
  return new Set(
    managed.flatMap(({ fieldsV1 }) =>
      Object.entries(fieldsOf(fieldsOf(fieldsV1)['f:webhooks'])).flatMap(([key, fields]) =>
        fieldsOf(fields)['f:namespaceSelector'] === undefined ? [] : [nameInKey(key)],
      ),
    ),
  );
}

/** In managedFields, `k:{"name":"x"}` identifies an item of a list. */
function nameInKey(key: string): string {
  return /^k:\{"name":"([^"]*)"\}$/.exec(key)?.[1] ?? '';
}

function serviceOf({ clientConfig }: Fields): Fields {
  return fieldsOf(fieldsOf(clientConfig)['service']);
}

/** A configuration that names a URL keeps it: only its author knows what the path means. */
function hasService(webhook: Fields): boolean {
  return serviceOf(webhook)['name'] !== undefined;
}

function decode(caBundle: unknown): string {
  return Buffer.from(textOf(caBundle) ?? '', 'base64').toString();
}

function countOf(pem: string): number {
  return pem.split('-----BEGIN CERTIFICATE-----').length - 1;
}

function expressionsOf(webhook: Fields): Fields[] {
  return itemsOf(fieldsOf(webhook['namespaceSelector'])['matchExpressions']);
}

function missingFrom(webhook: Fields): readonly Fields[] {
  const there = expressionsOf(webhook);
  return NAMESPACE_EXPRESSIONS.filter(
    ({ key, operator, values }) =>
      !there.some((one) => one['key'] === key && one['operator'] === operator && values.every((v) => textsOf(one['values']).includes(v))),
  );
}

/** The current selector, with the missing expressions appended. A list of expressions has one
 *  owner, so the whole list is applied. */
function withExpressions(webhook: Fields): Fields {
  return { ...fieldsOf(webhook['namespaceSelector']), matchExpressions: [...expressionsOf(webhook), ...missingFrom(webhook)] };
}

const INTERVAL_MS = 5_000;
const RETRY_MS = 100;

/** Keeps the configuration complete until `signal` aborts, for a webhook whose certificate is
 *  created elsewhere. */
export async function keepConfiguration(kubernetes: Kubernetes, { log, ...options }: ConfigurationOptions & { log: Log }): Promise<void> {
  const { name, signal } = options;
  let reported = '';
  /** The same problem is logged once. */
  const report = (trouble: string, write: () => void): void => {
    if (trouble !== reported && trouble !== '') write();
    reported = trouble;
  };
  while (!signal.aborted) {
    let pause = INTERVAL_MS;
    try {
      const outcome = await completeConfiguration(kubernetes, options);
      if (outcome === 'outdated') pause = RETRY_MS;
      if (outcome === 'changed')
        log.info({ event: 'webhook-configuration-completed', configuration: name }, 'webhook configuration completed');
      report(outcome === 'missing' ? outcome : '', () => logMissing(log, name));
    } catch (error) {
      if (signal.aborted) return;
      report((error as Error).message, () =>
        log.warn(
          { event: 'webhook-configuration-failed', configuration: name, error },
          'cannot complete the webhook configuration; will retry',
        ),
      );
    }
    await delay(pause + Math.random() * 100, undefined, { signal, ref: false }).catch(() => undefined); // aborted: the loop ends
  }
}

/** Logs that no API server calls this webhook. */
export function logMissing(log: Log, name: string): void {
  log.warn(
    { event: 'webhook-configuration-missing', configuration: name },
    'the MutatingWebhookConfiguration does not exist: no API server calls this webhook',
  );
}
