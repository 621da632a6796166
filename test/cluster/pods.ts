import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { sha256, randomBytes } from '../support/image.ts';
import { until } from './cluster.ts';
import type { World } from './world.ts';

export interface Pod {
  metadata: { name: string; annotations?: Record<string, string>; labels?: Record<string, string> };
  spec: {
    containers: Container[];
    initContainers?: Container[];
    ephemeralContainers?: Container[];
    imagePullSecrets?: { name: string }[];
    volumes?: { name: string; image?: { reference: string } }[];
  };
  status: {
    phase: string;
    conditions?: { type: string; status: string }[];
    containerStatuses?: ContainerStatus[];
    ephemeralContainerStatuses?: ContainerStatus[];
  };
}
interface Container {
  name: string;
  image: string;
}
interface ContainerStatus {
  restartCount: number;
  state: { running?: object; waiting?: { reason: string; message?: string } };
}

/** @param name of a pod: `NAME` in the namespace `default`, or `NAMESPACE/NAME` */
function pathOf(name: string): { pods: string; own: string } {
  const slash = name.indexOf('/');
  const [namespace, own] = slash === -1 ? ['default', name] : [name.slice(0, slash), name.slice(slash + 1)];
  return { pods: `/api/v1/namespaces/${namespace}/pods`, own };
}

/** Creates a pod of one container. @param name `NAME`, or `NAMESPACE/NAME`, as everywhere here
 *  @returns it, as admission has changed it */
export async function createPod({ api }: World, name: string, image: string, spec: Record<string, unknown> = {}): Promise<Pod> {
  const { pods, own } = pathOf(name);
  const container = { name: 'main', image };
  return api<Pod>('POST', pods, {
    metadata: { name: own, labels: { 'made-by': 'test' } },
    spec: { terminationGracePeriodSeconds: 0, automountServiceAccountToken: false, containers: [container], ...spec },
  });
}

/** Waits while the pod makes progress. @throws Error: it makes none; the message contains its
 *  state */
export async function ready(world: World, name: string): Promise<Pod> {
  const progress = createProgress(name);
  for (;;) {
    const pod = await podOf(world, name);
    if (isReady(pod)) return pod;
    progress(pod.status);
    await sleep(200);
  }
}

/** The kubelet tries a pull that failed again after 10, 20, 40 and 80 seconds. */
const STANDSTILL_MS = 120_000;
/** A pod that fails repeatedly changes, too. */
const LONGEST_MS = 10 * 60_000;

/** @returns a function to call repeatedly with the current state; it throws when the state has not
 *  changed for two minutes, or after ten minutes in total */
export function createProgress(what: string): (state: unknown) => void {
  const started = performance.now();
  let last = '';
  let changed = started;
  return (state) => {
    const now = performance.now();
    const text = JSON.stringify(state) ?? '';
    if (text !== last) [last, changed] = [text, now];
    if (now - changed > STANDSTILL_MS || now - started > LONGEST_MS) {
      throw new Error(`${what} makes no progress after ${((now - started) / 1000).toFixed()} s: ${text}`);
    }
  };
}

export function isReady(pod: Pod): boolean {
  return pod.status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}

/** The pod's log. */
export function logOf({ api }: World, name: string, container?: string): Promise<string> {
  const { pods, own } = pathOf(name);
  return api<string>('GET', `${pods}/${own}/log${container === undefined ? '' : `?container=${container}`}`);
}

export function podOf({ api }: World, name: string): Promise<Pod> {
  const { pods, own } = pathOf(name);
  return api<Pod>('GET', `${pods}/${own}`);
}

/** Waits until the webhook, which needs all agents first, rewrites pods. @throws Error: it does
 *  not */
export async function rewriting(world: World): Promise<void> {
  const probe = { metadata: { name: 'probe' }, spec: { containers: [{ name: 'main', image: 'probe:1' }] } };
  await until(async () => {
    const pod = await world.api<Pod>('POST', '/api/v1/namespaces/default/pods?dryRun=All', probe);
    return isRewritten(pod);
  });
}

export function isRewritten({ spec }: Pod): boolean {
  return spec.containers.every(({ image }) => image.startsWith('127.0.0.1:25000/'));
}

/** Checks byte for byte that a pod contains the layers of the image made from this seed. */
export async function assertBytes(world: World, name: string, seed: string, layers: readonly number[]): Promise<void> {
  const expected = layers.map((size, n) => `layer-${n} ${sha256(randomBytes(`${seed} amd64 ${n}`, size)).slice('sha256:'.length)}`);
  let lines: string[] = [];
  await until(async () => (lines = (await logOf(world, name)).trim().split('\n')).at(-1) === 'holding');
  assert.deepEqual(lines, [...expected, 'holding']);
}

/** Removes all pods of a namespace, and waits until they are gone. */
export async function removePods({ kubectl }: World, namespace = 'default'): Promise<void> {
  await kubectl(['-n', namespace, 'delete', 'pod', '--now', '--ignore-not-found', '--all']);
}
