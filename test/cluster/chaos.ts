import { setTimeout as sleep } from 'node:timers/promises';
import { makeImage } from '../support/image.ts';
import { ApiError } from './api.ts';
import { assertBytes, createPod, createProgress, isReady, isRewritten, podOf, ready, removePods, rewriting, type Pod } from './pods.ts';
import { NAMESPACE, RELEASE, type World } from './world.ts';

export interface Fault {
  name: string;
  /** Seconds from a pod's creation until it must be ready, on a machine that is not busy with other
   *  work. */
  limit: number;
  /** How many pods are created during the fault; default 6. */
  pods?: number;
  strike: (world: World) => Promise<void>;
  /** Pods that the webhook has not rewritten need upstreams that the node itself can reach. */
  unrewritten?: boolean;
}

export interface Outcome {
  limit: number;
  /** The time of the slowest pod, in seconds. */
  slowest: number;
  /** The seconds that a pod takes afterwards, without a fault: a measure of how busy the machine
   *  is. */
  atRest: number;
  /** How many of all pods were rewritten. */
  rewritten: number;
  pods: number;
  /** The kubelet's messages about pulls that failed and were retried. */
  failures: string[];
}

const PAUSE_MS = 1000;
const LAYERS = [50_000, 300_000];

/** The faults. docs/operations.md states the limits. */
export const FAULTS: readonly Fault[] = [
  { name: 'Every registry is killed', limit: 60, strike: ({ killContainers }) => killContainers('registry') },
  {
    name: 'S3 is unavailable for 10 s',
    limit: 60,
    async strike({ kubectl }) {
      const scale = ['-n', NAMESPACE, 'scale', `deployment/${RELEASE}-object-storage`];
      await kubectl([...scale, '--replicas=0']);
      await sleep(10_000);
      await kubectl([...scale, '--replicas=1']);
    },
  },
  { name: "Every clash's mihomo is killed", limit: 60, strike: ({ killProcesses }) => killProcesses('clash', 'mihomo') },
  { name: 'Every webhook is killed', limit: 60, unrewritten: true, strike: ({ killContainers }) => killContainers('webhook') },
  { name: 'The agent is killed', limit: 60, strike: ({ killContainers }) => killContainers('agent') },
  {
    name: 'The kubelet is restarted',
    limit: 60,
    async strike({ kubelet }) {
      await kubelet.stop();
      await kubelet.start();
    },
  },
  {
    name: 'containerd is restarted',
    limit: 60,
    async strike({ containerd }) {
      await containerd.stop();
      await containerd.start();
    },
  },
  {
    name: 'The whole cluster loses its power',
    limit: 120,
    unrewritten: true,
    async strike(world) {
      await world.stop();
      await world.start();
    },
  },
];

/** Creates pods one after the other, each with a new image; the fault starts with the second pod.
 *  @throws Error: a pod was denied, had other bytes than its image, or does not become ready */
export async function underFault(world: World, { name, limit, pods: count = 6, strike, unrewritten = false }: Fault): Promise<Outcome> {
  const word = name.toLowerCase().replaceAll(/\W+/g, '-');
  const names = Array.from({ length: count }, (_, n) => `${word}-${n}`);
  for (const one of names) {
    await world.outside.push('dockerhub', `library/${one}`, '1', makeImage({ seed: one, layers: LAYERS, program: world.program }));
  }
  if (unrewritten) await world.outside.setDirect(true);
  const begun = new Map<string, number>();
  async function make(some: readonly string[]): Promise<Pod[]> {
    const made: Pod[] = [];
    for (const one of some) {
      begun.set(one, performance.now());
      made.push(await persistently(() => createOnce(world, one)));
      await sleep(PAUSE_MS);
    }
    return made;
  }
  async function strikeAsTheyAreMade(): Promise<Pod[]> {
    const first = await make(names.slice(0, 1));
    const [others] = await Promise.all([make(names.slice(1)), strike(world)]);
    return [...first, ...others];
  }
  const [made, ended] = await Promise.all([strikeAsTheyAreMade(), watch(world, names)]);
  for (const one of names) await assertBytes(world, one, one, LAYERS);
  const failures = await failedPulls(world, names);
  await removePods(world);
  if (unrewritten) await world.outside.setDirect(false);
  await settled(world);
  return {
    limit,
    slowest: Math.max(...names.map((one) => ((ended.get(one) ?? NaN) - (begun.get(one) ?? NaN)) / 1000)),
    atRest: await podAtRest(world, word),
    rewritten: made.filter(isRewritten).length,
    pods: count,
    failures,
  };
}

/** The time of a pod on an idle machine, in seconds. */
const USUAL_AT_REST = 5;

/** @throws Error: the slowest pod took longer than the limit, and not because the machine is as
 *  much slower */
export function assertWithinLimit(name: string, { limit, slowest, atRest }: Outcome): void {
  const allowed = limit * Math.max(1, atRest / USUAL_AT_REST);
  if (slowest > allowed)
    throw new Error(`${name}: the slowest pod was ready after ${slowest} s instead of ${allowed}, where one at rest takes ${atRest} s`);
}

/** @returns the seconds until a pod with a new image is ready */
async function podAtRest(world: World, word: string): Promise<number> {
  const name = `${word}-at-rest`;
  await world.outside.push('dockerhub', `library/${name}`, '1', makeImage({ seed: name, layers: LAYERS, program: world.program }));
  const started = performance.now();
  await createPod(world, name, `${name}:1`);
  await ready(world, name);
  const seconds = (performance.now() - started) / 1000;
  await removePods(world);
  return seconds;
}

/** The time at which each was first ready. @throws Error: they make no progress */
async function watch(world: World, names: readonly string[]): Promise<Map<string, number>> {
  const ended = new Map<string, number>();
  const progress = createProgress('a pod under the fault');
  while (ended.size < names.length) {
    const { items } = await persistently(() => world.api<{ items: Pod[] }>('GET', '/api/v1/namespaces/default/pods'));
    const now = performance.now();
    for (const name of names.filter((one) => !ended.has(one))) {
      const pod = items.find(({ metadata }) => metadata.name === name);
      if (pod !== undefined && isReady(pod)) ended.set(name, now);
    }
    progress(items.map(({ metadata, status }) => [metadata.name, status]));
    await sleep(250);
  }
  return ended;
}

/** An API server that is down does not count as a denial, since clients retry. @throws ApiError: it
 *  answers, and refuses */
async function persistently<T>(ask: () => Promise<T>): Promise<T> {
  const limit = performance.now() + 120_000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if ((error instanceof ApiError && error.status < 500) || performance.now() > limit) throw error;
      await sleep(250);
    }
  }
}

/** The response to an earlier try may have been lost. */
async function createOnce(world: World, name: string): Promise<Pod> {
  try {
    return await createPod(world, name, `${name}:1`);
  } catch (error) {
    if (error instanceof ApiError && error.status === 409) return podOf(world, name);
    throw error;
  }
}

interface Event {
  reason: string;
  message: string;
  involvedObject: { name: string };
}

async function failedPulls({ api }: World, names: readonly string[]): Promise<string[]> {
  const { items } = await api<{ items: Event[] }>('GET', '/api/v1/namespaces/default/events');
  const failed = items.filter(({ reason, message }) => reason === 'Failed' && message.startsWith('Failed to pull'));
  return failed.flatMap(({ involvedObject, message }) => (names.includes(involvedObject.name) ? [message] : []));
}

/** Everything of the chart is ready again. After a power failure, the status of a Deployment is out
 *  of date, so the webhook itself is probed. */
async function settled(world: World): Promise<void> {
  const { kubectl } = world;
  for (const workload of ['deployment/registry', 'deployment/webhook', 'deployment/object-storage', 'daemonset/agent']) {
    await kubectl(['-n', NAMESPACE, 'rollout', 'status', workload.replace('/', `/${RELEASE}-`), '--timeout=15m']);
  }
  await kubectl(['-n', 'kube-system', 'rollout', 'status', 'deployment/coredns', '--timeout=15m']);
  await rewriting(world);
}

/** In the notation of docs/operations.md. */
export function table(outcomes: Readonly<Record<string, Outcome>>): string {
  const rows = Object.entries(outcomes).map(
    ([name, { limit, slowest, rewritten, pods, failures }]) =>
      `| ${name} | ${limit} s | ${slowest.toFixed(1)} s | ${failures.length} | ${rewritten} of ${pods} |`,
  );
  return [
    '| what happens | stated: ready within | measured, the slowest pod | pulls that failed and were tried again | rewritten |',
    '|---|---|---|---|---|',
    ...rows,
  ].join('\n');
}
