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
  state: { running?: object; waiting?: { reason: string } };
}

const PODS = '/api/v1/namespaces/default/pods';

/** Creates a pod of one container. @returns it, as admission has changed it */
export async function createPod({ api }: World, name: string, image: string, spec: Record<string, unknown> = {}): Promise<Pod> {
  const container = { name: 'main', image };
  return api<Pod>('POST', PODS, {
    metadata: { name, labels: { 'made-by': 'test' } },
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
  return api<string>('GET', `${PODS}/${name}/log${container === undefined ? '' : `?container=${container}`}`);
}

export function podOf({ api }: World, name: string): Promise<Pod> {
  return api<Pod>('GET', `${PODS}/${name}`);
}

/** Waits until the webhook, which needs all agents first, rewrites pods. @throws Error: it does
 *  not */
export async function rewriting(world: World): Promise<void> {
  const probe = { metadata: { name: 'probe' }, spec: { containers: [{ name: 'main', image: 'probe:1' }] } };
  await until(async () => {
    const pod = await world.api<Pod>('POST', `${PODS}?dryRun=All`, probe);
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

/** Removes pods, by default all of a test, and waits until they are gone. */
export async function removePods({ kubectl }: World, ...names: string[]): Promise<void> {
  await kubectl(['delete', 'pod', '--now', '--ignore-not-found', ...(names.length === 0 ? ['--all'] : names)]);
}
