import { fieldsOf, itemsOf, textOf, type Fields } from '../io/untrusted.ts';
import type { Kubernetes } from '../kubernetes/client.ts';
import type { Reason } from './decision.ts';
import { imagesOf } from './pod-images.ts';
import { ORIGINALS } from './pod-patch.ts';
import type { Policy } from './policy.ts';

export interface ReportLine {
  namespace: string;
  pod: string;
  /** The container's name, or `volume/<name>` for an image volume. */
  container: string;
  image: string;
  /** The original name of a rewritten image. */
  original?: string;
  /** Why the image has this name. `before`: it would be rewritten now, but when the pod was
   *  created, the webhook was not running or did not answer, or the policy failed or did not
   *  exist. */
  reason: Reason | 'before';
}

const WHY: Record<ReportLine['reason'], string> = {
  namespace: 'its namespace is excluded',
  label: 'labelled kube-registry/rewrite: "false"',
  selector: 'excluded by a pod selector',
  operator: 'managed by an operator that compares images',
  critical: 'has a system-critical priority',
  mirror: 'a static pod of a kubelet',
  windows: 'may run on Windows',
  'virtual-node': 'may run on a virtual node',
  'never-pulled': 'imagePullPolicy: Never',
  placeholder: 'a placeholder that Istio replaces',
  'excluded-image': 'its image is excluded',
  'pull-secret': 'has imagePullSecrets that the webhook does not read',
  private: 'a pull secret of the pod matches it, and webhook.pullSecrets is skip',
  'secret-missing': 'the pod names a pull secret that does not exist, or did not exist when the pod was created',
  'secret-unusable': 'the pod names a pull secret that cannot be read; kubelets do not pull with it either',
  'name-too-long': 'its name would be too long',
  'other-registry': 'no upstream serves this host',
  'no-reference': 'not an image name',
  rewritten: 'rewritten',
  before: 'was not rewritten when it was created: restart the pod to rewrite it',
};

/** All of them. */
export const REPORT_REASONS = Object.keys(WHY) as ReportLine['reason'][];

/** The reason in words. */
export function explain(reason: ReportLine['reason']): string {
  return WHY[reason];
}

/** Lists every pod of the cluster, some hundred at a time. @throws OciError DENIED, UNAVAILABLE */
export async function* pagesOfPods(kubernetes: Kubernetes, signal: AbortSignal): AsyncGenerator<Fields[]> {
  let next = '';
  do {
    const page = fieldsOf(
      await kubernetes.get(`/api/v1/pods?limit=500${next === '' ? '' : `&continue=${encodeURIComponent(next)}`}`, signal),
    );
    yield itemsOf(page['items']);
    next = textOf(fieldsOf(page['metadata'])['continue']) ?? '';
  } while (next !== '');
}

/** Lists every pod of the cluster. @throws OciError DENIED, UNAVAILABLE */
export async function listPods(kubernetes: Kubernetes, signal: AbortSignal): Promise<Fields[]> {
  return (await Array.fromAsync(pagesOfPods(kubernetes, signal))).flat();
}

/** Reports all images of the pods that have not finished, and why each was or was not rewritten. */
export function reportPods(pods: readonly Fields[], policy: Policy): ReportLine[] {
  const alive = pods.filter((pod) => !['Succeeded', 'Failed'].includes(textOf(fieldsOf(pod['status'])['phase']) ?? ''));
  return alive.flatMap((pod) => {
    const metadata = fieldsOf(pod['metadata']);
    const namespace = textOf(metadata['namespace']) ?? '';
    const whole = policy.pod(pod, { namespace, groups: [] });
    const originals = originalsOf(metadata);
    const decide = policy.images(pod, namespace);
    return imagesOf(pod).map((place) => {
      const decided = decide(place);
      const own = 'reason' in decided ? decided.reason : 'before';
      const original = textOf(originals[place.name]);
      return {
        namespace,
        pod: textOf(metadata['name']) ?? '',
        container: place.name,
        image: withoutIds(place.image),
        ...(original === undefined ? {} : { original }),
        reason: own === 'rewritten' ? own : (whole ?? own),
      };
    });
  });
}

/** Anybody who knows an id may pull its images, and reports are passed on to other people. */
function withoutIds(image: string): string {
  return image.replace(/\/by-[a-z2-7-]{26,}\//, '/by-…/');
}

function originalsOf(metadata: Fields): Fields {
  try {
    return fieldsOf(JSON.parse(textOf(fieldsOf(metadata['annotations'])[ORIGINALS]) ?? '{}'));
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  }
}
