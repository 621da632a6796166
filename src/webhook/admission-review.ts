import { fieldsOf, textOf, type Fields } from '../io/untrusted.ts';
import { patchPod } from './pod-patch.ts';
import type { Policy } from './policy.ts';

export type Outcome = 'rewritten' | 'unchanged' | 'excluded' | 'gated' | 'error';

export interface Reviewed {
  /** The request's uid, or empty if there is none. */
  uid: string;
  /** The answer, an AdmissionReview (admission.k8s.io/v1) as JSON. It always allows the pod. */
  json: string;
  outcome: Outcome;
  error?: unknown;
}

export interface Review {
  policy: Policy;
  /** False if no image may be rewritten now, because nodes lack ready agents. */
  gateOpen: () => boolean;
}

/** Answers an AdmissionReview in JSON. The pod is always allowed; after any error it is allowed
 *  unchanged. */
export function reviewPod(body: string, review: Review): Reviewed {
  let document: unknown;
  try {
    document = JSON.parse(body);
  } catch (error) {
    return { uid: '', json: allow('', { 'left-alone': 'error' }), outcome: 'error', error };
  }
  return reviewParsed(document, review);
}

/** The same for a review that has been parsed. */
export function reviewParsed(document: unknown, { policy, gateOpen }: Review): Reviewed {
  let uid = '';
  const reviewed = (outcome: Outcome, audit: Record<string, string>, more: { patch?: string; error?: unknown } = {}): Reviewed => ({
    uid,
    json: allow(uid, audit, more.patch),
    outcome,
    error: more.error,
  });
  try {
    const request = fieldsOf(fieldsOf(document)['request']);
    uid = textOf(request['uid']) ?? '';
    checkRequest(request, uid);
    if (!gateOpen()) return reviewed('gated', { 'left-alone': 'gated' });
    const { operations, rewritten, reason } = patchPod(request, policy);
    if (reason !== undefined) return reviewed('excluded', { 'left-alone': reason });
    if (operations.length === 0) return reviewed('unchanged', {});
    return reviewed('rewritten', { rewritten: [...rewritten.keys()].join(' ') }, { patch: JSON.stringify(operations) });
  } catch (error) {
    return reviewed('error', { 'left-alone': 'error' }, { error });
  }
}

/** @throws TypeError if the review is not about a pod */
function checkRequest(request: Fields, uid: string): void {
  if (uid === '') throw new TypeError('the review has no request with a uid');
  const pod = request['object'];
  if (typeof pod !== 'object' || pod === null || Array.isArray(pod)) throw new TypeError('the request has no object');
  const { spec } = pod as Fields;
  if (typeof spec !== 'object' || spec === null || Array.isArray(spec)) throw new TypeError('the pod has no spec');
  const { containers } = spec as Fields;
  if (containers !== undefined && !Array.isArray(containers)) throw new TypeError("the pod's containers are not a list");
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
