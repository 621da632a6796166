import type { WebhookConfig } from '../config/schema.ts';
import { fieldsOf, textOf, textsOf, type Fields } from '../io/untrusted.ts';
import type { Decision, Reason } from './decision.ts';
import { globs } from '../oci/globs.ts';
import { createImageRules, type ServedRegistry } from './image-rules.ts';
import type { ImagePlace } from './pod-images.ts';
import { mayRunOnVirtualNode, mayRunOnWindows } from './pod-placement.ts';
import type { SecretLookup } from './pod-secrets.ts';
import { createPrivateImages } from './private-images.ts';

export interface Policy {
  /** Whether the registry serves the image; the others keep their names, whatever else holds. */
  serves(image: string): boolean;
  /** @returns why no image of the pod is rewritten, or undefined if `images` decides for each */
  pod(pod: Fields, request: { namespace: string; groups: readonly string[] }): Reason | undefined;
  /** @returns a function that decides for each image of the pod */
  images(pod: Fields, namespace: string): (place: ImagePlace) => Decision;
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

export interface PolicyOptions extends Partial<ServedRegistry> {
  /** By default no Secret is read. */
  secretsOf?: SecretLookup;
}

/** Decides which pods and images are rewritten. */
export function createPolicy(config: WebhookConfig, upstreams: ServedRegistry['upstreams'], options: PolicyOptions = {}): Policy {
  const { exclude } = config;
  const { secretsOf = () => undefined, ...other } = options;
  const isExcludedNamespace = globs(exclude.namespaces);
  const factsOf = createImageRules(config, { ...other, upstreams });
  const imagesWith = createPrivateImages(config, secretsOf);

  return {
    serves: (image) => factsOf(image).plain !== undefined,

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

    images(pod, namespace) {
      const nameOf = imagesWith(pod, namespace);
      return ({ image, pullPolicy }) => {
        if (image === config.registryHost || image.startsWith(`${config.registryHost}/`)) return { reason: 'rewritten' };
        if (pullPolicy === 'Never') return { reason: 'never-pulled' };
        if (PLACEHOLDERS.includes(image)) return { reason: 'placeholder' };
        const facts = factsOf(image);
        if (facts.plain === undefined) return { reason: facts.isName ? 'other-registry' : 'no-reference' };
        return facts.isExcluded ? { reason: 'excluded-image' } : nameOf(image, facts.plain, facts);
      };
    },
  };
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
