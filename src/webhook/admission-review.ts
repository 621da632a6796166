import { fieldsOf, textOf, type Fields } from './fields.ts';
import { patchPod } from './pod-patch.ts';
import type { Policy } from './policy.ts';

export type Outcome = 'rewritten' | 'unchanged' | 'excluded' | 'gated' | 'error';

export interface Reviewed {
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
  try {
    const request = fieldsOf(fieldsOf(JSON.parse(body))['request']);
    uid = textOf(request['uid']) ?? '';
    checkRequest(request, uid);
    if (!gateOpen()) return { json: allow(uid, { 'left-alone': 'gated' }), outcome: 'gated' };
    const { operations, rewritten, reason } = patchPod(request, policy);
    if (reason !== undefined) return { json: allow(uid, { 'left-alone': reason }), outcome: 'excluded' };
    if (operations.length === 0) return { json: allow(uid, {}), outcome: 'unchanged' };
    return { json: allow(uid, { rewritten: Object.keys(rewritten).join(' ') }, JSON.stringify(operations)), outcome: 'rewritten' };
  } catch (error) {
    return { json: allow(uid, { 'left-alone': 'error' }), outcome: 'error', error };
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
