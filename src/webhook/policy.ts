import picomatch from 'picomatch';
import type { Upstream, WebhookConfig } from '../config/schema.ts';
import { fieldsOf, textOf, textsOf, type Fields } from '../io/untrusted.ts';
import { fullNames, parseImage, servedHosts, type ServedConfig } from '../oci/image-name.ts';
import type { ImagePlace } from './pod-images.ts';
import { mayRunOnVirtualNode, mayRunOnWindows } from './pod-placement.ts';
import { createEntriesFor, pullSecretNames, type SecretLookup } from './pod-secrets.ts';
import { rewriteImage, withIds } from './rewrite-image.ts';

/** Why a pod or an image is not rewritten. */
export type Reason =
  | 'namespace'
  | 'label'
  | 'selector'
  | 'operator'
  | 'critical'
  | 'mirror'
  | 'windows'
  | 'virtual-node'
  | 'never-pulled'
  | 'placeholder'
  | 'excluded-image'
  | 'pull-secret'
  | 'private'
  | 'secret-missing'
  | 'secret-unusable'
  | 'name-too-long'
  | 'other-registry'
  | 'no-reference'
  | 'rewritten';

export interface Policy {
  /** Whether the registry serves the image; the others keep their names, whatever else holds. */
  serves(image: string): boolean;
  /** @returns why no image of the pod is rewritten, or undefined if `image` decides for each */
  pod(pod: Fields, request: { namespace: string; groups: readonly string[] }): Reason | undefined;
  /** @returns the rewritten name, or why the image is not rewritten */
  image(place: ImagePlace, pod: Fields, namespace: string): { image: string } | { reason: Reason };
}

const REWRITE_LABEL = 'kube-registry/rewrite';
export const CRITICAL = ['system-node-critical', 'system-cluster-critical'];
/** Pods of operators that compare the image with the one they asked for. While the two differ, the
 *  operator keeps replacing the pod or reports it as outdated. Matched by label; undefined: any
 *  value. */
export const OPERATORS: readonly [label: string, value: string | undefined][] = [
  ['cnpg.io/cluster', undefined], // CloudNativePG
  ['application', 'spilo'], // Zalando's Postgres operator
  ['olm.catalogSource', undefined], // Operator Lifecycle Manager
  ['kubevirt.io', 'virt-launcher'], // KubeVirt's workload updater
];
/** The image of Istio's gateways. Istio's own webhook replaces it, if it still finds it. */
export const PLACEHOLDERS = ['auto'];
/** Images that can be pulled without a secret: Docker Official Images, those of Kubernetes,
 *  and distroless. */
export const PUBLIC_REPOSITORIES = [
  'docker.io/library/*',
  'registry.k8s.io/**',
  'k8s.gcr.io/**',
  'gcr.io/distroless/**',
  'gcr.io/google-containers/**',
];

/** The parts of `registry` that determine which images are rewritten. */
export type ServedRegistry = ServedConfig & { upstreams: Readonly<Record<string, Upstream>> };

export interface PolicyOptions extends Partial<ServedRegistry> {
  /** By default no Secret is read. */
  secretsOf?: SecretLookup;
}

/** Decides which pods and images are rewritten. */
export function createPolicy(config: WebhookConfig, upstreams: ServedRegistry['upstreams'], options: PolicyOptions = {}): Policy {
  const { exclude } = config;
  const { secretsOf = () => undefined, ...other } = options;
  const rules = { registryHost: config.registryHost, hosts: servedHosts({ ...other, upstreams }) };
  const isExcludedNamespace = globs(exclude.namespaces);
  const isExcludedImage = globs(exclude.images);
  const isPublic = globs([...PUBLIC_REPOSITORIES, ...config.publicRepositories]);
  /** Repositories whose images the registry pulls with its own credentials. */
  const credentialed = Object.values(upstreams).flatMap(({ hosts, credentials }) =>
    hosts.flatMap((host) => credentials.map(({ repositories }) => `${host}/${repositories}`)),
  );

  const isPulledByAll = (name: string): boolean => isPublic(name) || credentialed.some((prefix) => name.startsWith(prefix));
  const entriesFor = createEntriesFor({ secretsOf, isIgnored: globs(config.ignorePullSecrets) });

  /** The name of an image of a host that is served.
   *  @param names its full names @param plain its rewritten name as a public image */
  function nameOf(names: readonly string[], plain: string, of: { pod: Fields; namespace: string }): { image: string } | { reason: Reason } {
    if (config.pullSecrets === 'rewrite' || pullSecretNames(of.pod).length === 0 || names.some(isPulledByAll)) return { image: plain };
    const found = entriesFor(names[0] ?? '', of);
    if ('reason' in found) return found;
    if (found.ids.length === 0) return { image: plain };
    if (config.pullSecrets === 'skip') return { reason: 'private' };
    const name = withIds(plain, found.ids, config.registryHost);
    return name === undefined ? { reason: 'name-too-long' } : { image: name };
  }

  return {
    serves: (image) => rewriteImage(image, rules) !== undefined,

    pod(pod, { namespace, groups }) {
      const { labels: own, annotations } = fieldsOf(pod['metadata']);
      const labels = fieldsOf(own);
      if (isExcludedNamespace(namespace)) return 'namespace';
      if (labels[REWRITE_LABEL] === 'false') return 'label';
      if (OPERATORS.some(([label, value]) => labels[label] !== undefined && (value ?? labels[label]) === labels[label])) return 'operator';
      if (exclude.podSelectors.some((selector) => selects(selector, labels))) return 'selector';
      if (CRITICAL.includes(textOf(fieldsOf(pod['spec'])['priorityClassName']) ?? '')) return 'critical';
      if (groups.includes('system:nodes') || fieldsOf(annotations)['kubernetes.io/config.mirror'] !== undefined) return 'mirror';
      if (mayRunOnWindows(pod)) return 'windows';
      return mayRunOnVirtualNode(pod) ? 'virtual-node' : undefined;
    },

    image({ image, pullPolicy }, pod, namespace) {
      if (image === config.registryHost || image.startsWith(`${config.registryHost}/`)) return { reason: 'rewritten' };
      if (pullPolicy === 'Never') return { reason: 'never-pulled' };
      if (PLACEHOLDERS.includes(image)) return { reason: 'placeholder' };
      const rewritten = rewriteImage(image, rules);
      if (rewritten === undefined) return { reason: parseImage(image) === undefined ? 'no-reference' : 'other-registry' };
      const names = fullNames(image);
      return names.some(isExcludedImage) ? { reason: 'excluded-image' } : nameOf(names, rewritten, { pod, namespace });
    },
  };
}

function globs(patterns: readonly string[]): (text: string) => boolean {
  if (patterns.length === 0) return () => false;
  const matches = picomatch([...patterns], { dot: true, nonegate: true });
  return (text) => matches(text);
}

type Selector = WebhookConfig['exclude']['podSelectors'][number];

/** Label selectors as Kubernetes evaluates them. */
function selects({ matchLabels = {}, matchExpressions = [] }: Selector, labels: Fields): boolean {
  if (Object.entries(matchLabels).some(([key, value]) => labels[key] !== value)) return false;
  return matchExpressions.every(({ key, operator, values }) => {
    const value = textOf(labels[key]);
    const isListed = value !== undefined && textsOf(values).includes(value);
    if (operator === 'Exists') return value !== undefined;
    if (operator === 'DoesNotExist') return value === undefined;
    return operator === 'In' ? isListed : !isListed;
  });
}
