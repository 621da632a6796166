import { parseConfig } from '../src/config/load.ts';
import { LABEL_KEY, LABEL_VALUE, NODE_NAME, OS_LABELS, POD_MARKS, REFUSALS, SCHEDULERS, TAINTS } from '../src/webhook/pod-placement.ts';
import { PUBLIC_REPOSITORIES } from '../src/webhook/image-rules.ts';
import { CRITICAL, OPERATORS, PLACEHOLDERS } from '../src/webhook/policy.ts';
import { NAMESPACE_EXPRESSIONS } from '../src/webhook/webhook-configuration.ts';

/** The webhook's built-in rules about pods and images. The chart's policy is rendered from them,
 *  because templates cannot read TypeScript. Regular expressions are in the syntax that JavaScript
 *  and RE2 share. */
export function rewritingFacts(): Record<string, unknown> {
  const { registry, webhook } = parseConfig({});
  const upstreams = Object.entries(registry.upstreams).map(([name, { hosts, defaultNamespace }]) => [name, { hosts, defaultNamespace }]);
  return {
    upstreams: Object.fromEntries(upstreams) as unknown,
    otherHosts: registry.otherHosts,
    ignorePullSecrets: webhook.ignorePullSecrets,
    publicRepositories: PUBLIC_REPOSITORIES,
    namespaceExpressions: NAMESPACE_EXPRESSIONS,
    operators: OPERATORS.map(([label, value]) => (value === undefined ? { label } : { label, value })),
    critical: CRITICAL,
    placeholders: PLACEHOLDERS,
    osLabels: OS_LABELS,
    virtual: {
      marks: POD_MARKS,
      refusals: REFUSALS,
      schedulers: SCHEDULERS,
      taints: TAINTS,
      nodeName: NODE_NAME.source,
      labelKey: LABEL_KEY.source,
      labelValue: LABEL_VALUE.source,
    },
  };
}
