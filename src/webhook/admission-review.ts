import { fieldsOf, textOf, type Fields } from '../io/untrusted.ts';
import { patchPod } from './pod-patch.ts';
import type { Policy } from './policy.ts';

export type Outcome = 'rewritten' | 'unchanged' | 'excluded' | 'gated' | 'error';

export interface Reviewed {
  /** Of the request; empty where there is none. */
  uid: string;
  /** An AdmissionReview (admission.k8s.io/v1) with its response, as JSON. It always allows. */
  json: string;
  outcome: Outcome;
  error?: unknown;
}

export interface Review {
  policy: Policy;
  /** Whether the nodes have their agents. */
  gateOpen: () => boolean;
}

/** Answers an AdmissionReview. Whatever happens, the pod is allowed: at worst unchanged. */
export function reviewPod(body: string, { policy, gateOpen }: Review): Reviewed {
  let uid = '';
  const reviewed = (outcome: Outcome, audit: Record<string, string>, more: { patch?: string; error?: unknown } = {}): Reviewed => ({
    uid,
    json: allow(uid, audit, more.patch),
    outcome,
    error: more.error,
  });
  try {
    const request = fieldsOf(fieldsOf(JSON.parse(body))['request']);
    uid = textOf(request['uid']) ?? '';
    checkRequest(request, uid);
    if (!gateOpen()) return reviewed('gated', { 'left-alone': 'gated' });
    const { operations, rewritten, reason } = patchPod(request, policy);
    if (reason !== undefined) return reviewed('excluded', { 'left-alone': reason });
    if (operations.length === 0) return reviewed('unchanged', {});
    return reviewed('rewritten', { rewritten: Object.keys(rewritten).join(' ') }, { patch: JSON.stringify(operations) });
  } catch (error) {
    return reviewed('error', { 'left-alone': 'error' }, { error });
  }
}

/** @throws TypeError: it is no request about a pod */
function checkRequest(request: Fields, uid: string): void {
  if (uid === '') throw new TypeError('the review holds no request with a uid');
  const pod = request['object'];
  if (typeof pod !== 'object' || pod === null || Array.isArray(pod)) throw new TypeError('the request holds no object');
  const { spec } = pod as Fields;
  if (typeof spec !== 'object' || spec === null || Array.isArray(spec)) throw new TypeError('the pod has no spec');
  const { containers } = spec as Fields;
  if (containers !== undefined && !Array.isArray(containers)) throw new TypeError("the pod's containers are no list");
}

function allow(uid: string, auditAnnotations: Record<string, string>, patch?: string): string {
  return JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: {
      uid,
      allowed: true,
      ...(patch === undefined ? {} : { patchType: 'JSONPatch', patch: Buffer.from(patch).toString('base64') }),
      ...(Object.keys(auditAnnotations).length === 0 ? {} : { auditAnnotations }),
    },
  });
}
