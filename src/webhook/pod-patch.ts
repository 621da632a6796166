import { fieldsOf, textOf, textsOf, type Fields } from '../io/untrusted.ts';
import type { Reason } from './decision.ts';
import { imagesOf, type ImagePlace } from './pod-images.ts';
import type { Policy } from './policy.ts';

/** The annotation that keeps the original image names: JSON, container name → image. */
export const ORIGINALS = 'kube-registry/original-images';

/** The API server's size limit for a pod's annotations (TotalAnnotationSizeLimitB of
 *  k8s.io/apimachinery). */
const MAX_ANNOTATIONS_BYTES = 256 * 1024;
/** Room for annotations that later webhooks may add. */
const RESERVED_BYTES = 16 * 1024;

/** An entry of the annotation, without escapes. Group 1 is the container's name. */
const ENTRY = '"([^"\\\\{}\\x00-\\x1f]*)":"[^"\\\\{}\\x00-\\x1f]*"';
const ENTRIES = new RegExp(ENTRY, 'g');
const ANNOTATION = new RegExp(`^\\{${ENTRY}(?:,${ENTRY})*\\}$`);

/** An operation of a JSON Patch (RFC 6902). */
export interface PatchOperation {
  op: 'add' | 'replace';
  path: string;
  value: unknown;
}

export interface PodPatch {
  operations: PatchOperation[];
  /** Container name → original image. */
  rewritten: ReadonlyMap<string, string>;
  /** Why no image of the pod is rewritten, if the pod as a whole is excluded. */
  reason?: Reason;
}

/** The changes to the pod of an admission request (admission.k8s.io/v1): one `replace` per image,
 *  and the annotation with the original names. */
export function patchPod(request: Fields, policy: Policy): PodPatch {
  const pod = fieldsOf(request['object']);
  const places = candidates(request, pod);
  if (!places.some(({ image }) => policy.serves(image))) return { operations: [], rewritten: new Map() };
  const metadata = fieldsOf(pod['metadata']);
  const namespace = textOf(request['namespace']) ?? textOf(metadata['namespace']) ?? '';
  const reason = policy.pod(pod, { namespace, groups: textsOf(fieldsOf(request['userInfo'])['groups']) });
  if (reason !== undefined) return { operations: [], rewritten: new Map(), reason };
  const decide = policy.images(pod, namespace);
  const operations: PatchOperation[] = [];
  const rewritten = new Map<string, string>();
  for (const place of places) {
    const decided = decide(place);
    if ('reason' in decided) continue;
    operations.push({ op: 'replace', path: place.path, value: decided.image });
    rewritten.set(place.name, place.image);
  }
  // The API server silently drops every other change that is made through this subresource.
  if (operations.length > 0 && request['subResource'] !== 'ephemeralcontainers') operations.push(...annotate(metadata, rewritten));
  return { operations, rewritten };
}

/** The images that this request introduces. An update introduces only those that it changes: the
 *  others are running already. */
function candidates(request: Fields, pod: Fields): ImagePlace[] {
  const places = imagesOf(pod);
  if (request['operation'] !== 'UPDATE') return places;
  const before = new Map(imagesOf(fieldsOf(request['oldObject'])).map(({ name, image }) => [name, image]));
  if (request['subResource'] === 'ephemeralcontainers')
    return places.filter(({ name, path }) => path.startsWith('/spec/ephemeralContainers/') && !before.has(name));
  return places.filter(({ name, image }) => before.get(name) !== image);
}

/** Records the original names. @returns nothing if the API server would then refuse the pod for the
 *  size of its annotations */
function annotate(metadata: Fields, rewritten: ReadonlyMap<string, string>): PatchOperation[] {
  const { annotations } = metadata;
  const known = entriesOf(textOf(fieldsOf(annotations)[ORIGINALS]) ?? '').filter(({ name }) => !rewritten.has(name));
  const added = [...rewritten].map(([name, image]) => `${JSON.stringify(name)}:${JSON.stringify(image)}`);
  const value = `{${[...known.map(({ text }) => text), ...added].join(',')}}`;
  if (sizeOf({ ...fieldsOf(annotations), [ORIGINALS]: value }) > MAX_ANNOTATIONS_BYTES - RESERVED_BYTES) return [];
  return typeof annotations === 'object' && annotations !== null && !Array.isArray(annotations)
    ? [{ op: 'add', path: `/metadata/annotations/${ORIGINALS.replaceAll('/', '~1')}`, value }]
    : [{ op: 'add', path: '/metadata/annotations', value: { [ORIGINALS]: value } }];
}

/** As the API server counts them: the bytes of all keys and values. */
function sizeOf(annotations: Fields): number {
  return Object.entries(annotations).reduce(
    (sum, [key, value]) => sum + Buffer.byteLength(key) + Buffer.byteLength(textOf(value) ?? ''),
    0,
  );
}

/** The annotation of an earlier call for the same pod, entry by entry: API servers call again after
 *  other webhooks have changed it. Only what this program writes is read. Anything else in the
 *  annotation is ignored: valid names and images need no escapes. The policy of the chart, which
 *  cannot parse JSON, reads it by the same pattern. */
function entriesOf(annotation: string): { name: string; text: string }[] {
  if (!ANNOTATION.test(annotation)) return [];
  return [...annotation.matchAll(ENTRIES)].map(([text, name = '']) => ({ name, text }));
}
