import { fieldsOf, itemsOf, textOf, textsOf, type Fields } from '../io/untrusted.ts';

// Where a pod may run, according to its own fields. No agent listens on 127.0.0.1 of a virtual or a
// Windows node, so the images of pods that run there must keep their names. A pod that may run on
// either kind of node counts as one of those: with its original images it starts on both.

/** Labels and annotations by which a pod requests a virtual node, unless their value says no. */
export const POD_MARKS = [
  'eks.amazonaws.com/fargate-profile',
  'alibabacloud.com/eci',
  'alibabacloud.com/acs',
  'alibabacloud.com/compute-class', // ACS
  'alibabacloud.com/burst-resource', // ECI or ACS when the nodes are full
  'bursting.cci.io/burst-to-cci', // Huawei CCE to CCI 2.0
  'virtual-kubelet.io/burst-to-cci', // and to CCI 1.0
  'vke.volcengine.com/burst-to-vci',
];
export const REFUSALS = ['false', 'off', 'disabled', 'none'];
/** Taints of virtual nodes. */
export const TAINTS = [
  'virtual-kubelet.io/provider', // ACI, ECI, BCI, CCI
  'eks.amazonaws.com/compute-type', // Fargate
  'eks.tke.cloud.tencent.com/eklet', // TKE super nodes
  'vci.vke.volcengine.com/node-type',
  'virtual-node.liqo.io/not-allowed',
];
/** Labels of virtual nodes, by their value (`type=virtual-kubelet`,
 *  `node.kubernetes.io/instance-type=eklet`) or by their key. */
export const LABEL_VALUE = /^(?:virtual-kubelet|virtual-node|eklet|fargate|vci|eci|cci|bci)$/;
export const LABEL_KEY = /virtual-kubelet|virtual-node|\beklet\b|\bfargate\b/;
export const NODE_NAME = /^(?:virtual-kubelet|virtual-node|fargate-|eklet-|vci-|bursting-node)/;
export const OS_LABELS = ['kubernetes.io/os', 'beta.kubernetes.io/os'];
export const SCHEDULERS = ['fargate-scheduler', 'eci-scheduler'];

/** True if a pod may run on a virtual node (virtual kubelets, Fargate, TKE super nodes, CCI, VCI,
 *  ECI, ACS). */
export function mayRunOnVirtualNode(pod: Fields): boolean {
  const { labels, annotations } = fieldsOf(pod['metadata']);
  const marks = [fieldsOf(labels), fieldsOf(annotations)];
  const spec = fieldsOf(pod['spec']);
  return (
    POD_MARKS.some((mark) => marks.some((of) => of[mark] !== undefined && !REFUSALS.includes(textOf(of[mark]) ?? ''))) ||
    SCHEDULERS.includes(textOf(spec['schedulerName']) ?? '') ||
    nodeNames(spec).some((name) => NODE_NAME.test(name)) ||
    itemsOf(spec['tolerations']).some(({ key }) => TAINTS.includes(textOf(key) ?? '') || LABEL_KEY.test(textOf(key) ?? '')) ||
    requirements(spec).some(asksForVirtualNode)
  );
}

/** True if a pod may run on Windows. */
export function mayRunOnWindows(pod: Fields): boolean {
  const spec = fieldsOf(pod['spec']);
  if (fieldsOf(spec['os'])['name'] === 'windows') return true;
  return requirements(spec).some(
    ({ key, operator, values }) =>
      OS_LABELS.includes(key) && ((operator === 'In' && values.includes('windows')) || (operator === 'NotIn' && values.includes('linux'))),
  );
}

/** A requirement on a node label, from nodeSelector or node affinity. */
interface Requirement {
  key: string;
  operator: string;
  values: string[];
}

function asksForVirtualNode({ key, operator, values }: Requirement): boolean {
  if (operator === 'Exists') return LABEL_KEY.test(key);
  if (operator !== 'In') return false;
  return values.some((value) => LABEL_VALUE.test(value) || (LABEL_KEY.test(key) && !REFUSALS.includes(value)));
}

/** Collects required and preferred terms alike: a pod usually runs where it prefers to. */
function requirements(spec: Fields): Requirement[] {
  const selected = Object.entries(fieldsOf(spec['nodeSelector'])).map(([key, value]) => ({
    key,
    operator: 'In',
    values: textsOf([value]),
  }));
  const expressions = terms(spec).flatMap(({ matchExpressions }) => itemsOf(matchExpressions));
  const wanted = expressions.map(({ key, operator, values }) => ({
    key: textOf(key) ?? '',
    operator: textOf(operator) ?? '',
    values: textsOf(values),
  }));
  return [...selected, ...wanted];
}

/** The nodes that a pod is bound to. Pods of DaemonSets name their node in the affinity. */
function nodeNames(spec: Fields): string[] {
  const fields = terms(spec).flatMap(({ matchFields }) => itemsOf(matchFields));
  const named = fields.filter(({ key, operator }) => key === 'metadata.name' && operator === 'In').flatMap(({ values }) => textsOf(values));
  return [textOf(spec['nodeName']) ?? '', ...named];
}

function terms(spec: Fields): Fields[] {
  const affinity = fieldsOf(fieldsOf(spec['affinity'])['nodeAffinity']);
  const required = itemsOf(fieldsOf(affinity['requiredDuringSchedulingIgnoredDuringExecution'])['nodeSelectorTerms']);
  const preferred = itemsOf(affinity['preferredDuringSchedulingIgnoredDuringExecution']).map(({ preference }) => fieldsOf(preference));
  return [...required, ...preferred];
}
