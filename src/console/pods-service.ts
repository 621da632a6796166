import { fieldsOf, itemsOf, textOf, type Fields } from '../io/untrusted.ts';
import { isDigest, type Digest } from '../oci/digest.ts';
import type { Reference, Repository } from '../oci/reference.ts';

/** A container of a pod that uses an image. */
export interface PodUse {
  namespace: string;
  pod: string;
  container: string;
  node: string | null;
}

export interface PodsOptions<Line> {
  /** Lists the pods of the cluster; undefined: the configuration does not allow it.
   *  @throws OciError DENIED, UNAVAILABLE */
  list: ((signal: AbortSignal) => Promise<Fields[]>) | undefined;
  /** The images of a pod's containers, as written in its spec. */
  imagesOf(this: void, pod: Fields): readonly { name: string; image: string }[];
  /** The upstream and repository of an image; undefined: the registry does not serve it. */
  locate(this: void, image: string): { repository: Repository; reference: Reference } | undefined;
  /** For each image, whether it is rewritten, and if not, why. */
  report(this: void, pods: readonly Fields[]): Line[];
  stop: AbortSignal;
}

export interface Pods<Line> {
  /** Call it when the pods are viewed: if the last list is old, they are listed again in the
   *  background. */
  look(this: void): void;
  /** Resolves when the running listing has ended, or after a second. */
  settled(this: void): Promise<void>;
  /** Undefined: the pods have not been listed. */
  takenAt(this: void): Date | undefined;
  problem(this: void): string | undefined;
  /** Undefined: the pods have not been listed. */
  usesOf(this: void, image: { repository: Repository; tag: string | undefined; digest: Digest }): readonly PodUse[] | undefined;
  lines(this: void): readonly Line[];
  pods(this: void): readonly PodSummary[];
}

/** The fields of a pod that the agents view needs. */
export interface PodSummary {
  namespace: string;
  owner: string;
  node: string;
  ready: boolean;
}

const INTERVAL_MS = 60_000;
const SETTLE_MS = 1000;
const NOT_ALLOWED = 'pods are listed only with registry.console.pods (console.pods: true in the values of the chart)';

/** The images that the pods of the cluster use, listed in the background while the console is
 *  open. */
export function createPods<Line>({ list, imagesOf, locate, report, stop }: PodsOptions<Line>): Pods<Line> {
  let uses = new Map<string, PodUse[]>();
  let lines: Line[] = [];
  let summaries: PodSummary[] = [];
  let takenAt: number | undefined;
  let triedAt = 0;
  let problem: string | undefined = list === undefined ? NOT_ALLOWED : undefined;
  let running: Promise<void> | undefined;

  async function take(ask: NonNullable<typeof list>): Promise<void> {
    triedAt = Date.now();
    try {
      const pods = await ask(stop);
      uses = collectUses(pods, { imagesOf, locate });
      lines = report(pods);
      summaries = pods.map(summarize);
      takenAt = Date.now();
      problem = undefined;
    } catch (error) {
      problem = error instanceof Error ? error.message : String(error);
    }
  }

  return {
    look() {
      if (list === undefined || Date.now() - triedAt < INTERVAL_MS) return;
      running ??= take(list).finally(() => (running = undefined));
    },
    async settled() {
      const late = new Promise<void>((resolve) => setTimeout(resolve, SETTLE_MS).unref());
      await Promise.race([running, late]);
    },
    takenAt: () => (takenAt === undefined ? undefined : new Date(takenAt)),
    problem: () => problem,
    usesOf({ repository, tag, digest }) {
      if (takenAt === undefined) return undefined;
      const byTag = tag === undefined ? [] : (uses.get(`${repository}:${tag}`) ?? []);
      const byDigest = uses.get(`${repository}@${digest}`) ?? [];
      return byTag.length === 0 ? byDigest : [...new Set([...byTag, ...byDigest])];
    },
    lines: () => lines,
    pods: () => summaries,
  };
}

/** The uses of images by pods, by the keys of the images. */
function collectUses(
  pods: readonly Fields[],
  { imagesOf, locate }: Pick<PodsOptions<unknown>, 'imagesOf' | 'locate'>,
): Map<string, PodUse[]> {
  const found = new Map<string, PodUse[]>();
  for (const pod of pods) {
    const metadata = fieldsOf(pod['metadata']);
    const running = runningImages(pod);
    for (const { name, image } of imagesOf(pod)) {
      const use: PodUse = {
        namespace: textOf(metadata['namespace']) ?? '',
        pod: textOf(metadata['name']) ?? '',
        container: name,
        node: textOf(fieldsOf(pod['spec'])['nodeName']) ?? null,
      };
      const keys = [image, ...(running.get(name) ?? [])].flatMap((own) => {
        const located = locate(own);
        return located === undefined ? [] : [keyOf(located.repository, located.reference)];
      });
      for (const key of new Set(keys)) append(found, key, use);
    }
  }
  return found;
}

function append(uses: Map<string, PodUse[]>, key: string, use: PodUse): void {
  const list = uses.get(key);
  if (list === undefined) uses.set(key, [use]);
  else list.push(use);
}

function keyOf(repository: Repository, reference: Reference): string {
  return `${repository}${isDigest(reference) ? '@' : ':'}${reference}`;
}

/** The digests that a pod's containers run, by container name. The tag in the spec may have moved
 *  since. */
function runningImages(pod: Fields): Map<string, string[]> {
  const status = fieldsOf(pod['status']);
  const found = new Map<string, string[]>();
  for (const list of ['initContainerStatuses', 'containerStatuses', 'ephemeralContainerStatuses']) {
    for (const { name, imageID } of itemsOf(status[list])) {
      const image = (textOf(imageID) ?? '').replace(/^docker-pullable:\/\//, '');
      found.set(textOf(name) ?? '', [...(found.get(textOf(name) ?? '') ?? []), image]);
    }
  }
  return found;
}

function summarize(pod: Fields): PodSummary {
  const metadata = fieldsOf(pod['metadata']);
  const conditions = itemsOf(fieldsOf(pod['status'])['conditions']);
  const [owner] = itemsOf(metadata['ownerReferences']);
  return {
    namespace: textOf(metadata['namespace']) ?? '',
    owner: owner === undefined ? '' : `${textOf(owner['kind']) ?? ''}/${textOf(owner['name']) ?? ''}`,
    node: textOf(fieldsOf(pod['spec'])['nodeName']) ?? '',
    ready: conditions.some(({ type, status }) => type === 'Ready' && status === 'True'),
  };
}
