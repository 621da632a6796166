import picomatch from 'picomatch';
import type { Upstream, WebhookConfig } from '../config/schema.ts';
import { fieldsOf, itemsOf, textOf, textsOf, type Fields } from '../io/untrusted.ts';
import { fullNames, parseImage, upstreamHosts } from '../oci/image-name.ts';
import type { ImagePlace } from './pod-images.ts';
import { rewriteImage } from './rewrite-image.ts';

/** Why something stays as it is. */
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
  | 'excluded-image'
  | 'pull-secret'
  | 'other-registry'
  | 'no-reference'
  | 'rewritten';

export interface Policy {
  /** Why no image of the pod is rewritten; undefined: each image decides for itself. */
  pod(pod: Fields, request: { namespace: string; groups: readonly string[] }): Reason | undefined;
  image(place: ImagePlace, pod: Fields): { image: string } | { reason: Reason };
}

const REWRITE_LABEL = 'kube-registry/rewrite';
const CRITICAL = ['system-node-critical', 'system-cluster-critical'];
/** Nodes of these are no machines on which an agent could listen. */
const VIRTUAL_LABELS = ['eks.amazonaws.com/fargate-profile', 'alibabacloud.com/eci'];
const VIRTUAL_TOLERATIONS = ['virtual-kubelet.io/provider', 'eks.amazonaws.com/compute-type'];

/** Decides which pods and images are rewritten, and which are left alone. */
export function createPolicy(config: WebhookConfig, upstreams: Readonly<Record<string, Upstream>>): Policy {
  const { exclude } = config;
  const rules = { registryHost: config.registryHost, upstreams: upstreamHosts(upstreams) };
  const inNamespace = globs(exclude.namespaces);
  const isExcluded = globs(exclude.images);
  const isPublic = globs(config.publicRepositories);
  const credentials = Object.values(upstreams).flatMap(({ hosts, credentials }) =>
    hosts.flatMap((host) => credentials.map(({ repositories }) => `${host}/${repositories}`)),
  );

  function mayPull(image: string, pod: Fields): boolean {
    const { imagePullSecrets } = fieldsOf(pod['spec']);
    if (config.pullSecrets === 'rewrite' || itemsOf(imagePullSecrets).length === 0) return true;
    return fullNames(image).some((name) => isPublic(name) || credentials.some((prefix) => name.startsWith(prefix)));
  }

  return {
    pod(pod, { namespace, groups }) {
      const labels = labelsOf(pod);
      if (inNamespace(namespace)) return 'namespace';
      if (labels[REWRITE_LABEL] === 'false') return 'label';
      if (labels['cnpg.io/cluster'] !== undefined || labels['application'] === 'spilo') return 'operator';
      if (exclude.podSelectors.some((selector) => selects(selector, labels))) return 'selector';
      const spec = fieldsOf(pod['spec']);
      if (CRITICAL.includes(textOf(spec['priorityClassName']) ?? '')) return 'critical';
      if (groups.includes('system:nodes') || annotationsOf(pod)['kubernetes.io/config.mirror'] !== undefined) return 'mirror';
      const nodeSelector = fieldsOf(spec['nodeSelector']);
      if (fieldsOf(spec['os'])['name'] === 'windows' || nodeSelector['kubernetes.io/os'] === 'windows') return 'windows';
      return isVirtual(spec, labels, nodeSelector) ? 'virtual-node' : undefined;
    },

    image({ image, pullPolicy }, pod) {
      if (image === config.registryHost || image.startsWith(`${config.registryHost}/`)) return { reason: 'rewritten' };
      if (pullPolicy === 'Never') return { reason: 'never-pulled' };
      const rewritten = rewriteImage(image, rules);
      if (rewritten === undefined) return { reason: parseImage(image) === undefined ? 'no-reference' : 'other-registry' };
      if (fullNames(image).some(isExcluded)) return { reason: 'excluded-image' };
      return mayPull(image, pod) ? { image: rewritten } : { reason: 'pull-secret' };
    },
  };
}

function isVirtual(spec: Fields, labels: Fields, nodeSelector: Fields): boolean {
  return (
    VIRTUAL_LABELS.some((label) => labels[label] !== undefined) ||
    nodeSelector['type'] === 'virtual-kubelet' ||
    nodeSelector['kubernetes.io/role'] === 'virtual-node' ||
    spec['schedulerName'] === 'fargate-scheduler' ||
    /^(?:virtual-(?:kubelet|node)|fargate-)/.test(textOf(spec['nodeName']) ?? '') ||
    itemsOf(spec['tolerations']).some(({ key }) => VIRTUAL_TOLERATIONS.includes(textOf(key) ?? ''))
  );
}

function globs(patterns: readonly string[]): (text: string) => boolean {
  if (patterns.length === 0) return () => false;
  const matches = picomatch([...patterns], { dot: true, nonegate: true });
  return (text) => matches(text);
}

function labelsOf(pod: Fields): Fields {
  return fieldsOf(fieldsOf(pod['metadata'])['labels']);
}

function annotationsOf(pod: Fields): Fields {
  return fieldsOf(fieldsOf(pod['metadata'])['annotations']);
}

type Selector = WebhookConfig['exclude']['podSelectors'][number];

/** As Kubernetes selects by labels. */
function selects({ matchLabels = {}, matchExpressions = [] }: Selector, labels: Fields): boolean {
  if (Object.entries(matchLabels).some(([key, value]) => labels[key] !== value)) return false;
  return matchExpressions.every(({ key, operator, values }) => {
    const value = textOf(labels[key]);
    const listed = value !== undefined && textsOf(values).includes(value);
    if (operator === 'Exists') return value !== undefined;
    if (operator === 'DoesNotExist') return value === undefined;
    return operator === 'In' ? listed : !listed;
  });
}
