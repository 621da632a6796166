import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { makeImage } from '../support/image.ts';
import { until } from './cluster.ts';
import { assertBytes, createPod, ready, removePods } from './pods.ts';
import { CHART, NAMESPACE, RELEASE, startWorld, values, type World } from './world.ts';

// The whole of it, on one cluster that the tests use one after the other.

const LAYERS = [100_000, 2_000_000];
let world: World;
before(async () => {
  world = await startWorld();
});
after(() => world[Symbol.asyncDispose]());

test('helm installs it, with S3 in the chart, and everything answers', async () => {
  await world.helm(['install', RELEASE, CHART, '-n', NAMESPACE, '--wait', '--timeout', '3m', '--values', '-'], values(world));
  await world.helm(['test', RELEASE, '-n', NAMESPACE]);
});

test('a pod of each upstream comes through the node, the agent, the registry and S3', async () => {
  const images = {
    dockerhub: { repository: 'library/web', image: 'web:1', rewritten: 'dockerhub/library/web:1' },
    ghcr: { repository: 'acme/web', image: 'ghcr.io/acme/web:1', rewritten: 'ghcr/acme/web:1' },
    quay: { repository: 'acme/web', image: 'quay.io/acme/web:1', rewritten: 'quay/acme/web:1' },
    k8s: { repository: 'web', image: 'registry.k8s.io/web:1', rewritten: 'k8s/web:1' },
  } as const;
  for (const [name, { repository }] of Object.entries(images) as [keyof typeof images, { repository: string }][]) {
    await world.outside.push(name, repository, '1', makeImage({ seed: name, layers: LAYERS, program: world.program }));
  }
  await rewriting();
  for (const [name, { image, rewritten }] of Object.entries(images)) {
    await world.kubectl(['run', name, `--image=${image}`, '--restart=Never']);
    const pod = await ready(world, name);
    assert.equal(pod.spec.containers[0]?.image, `127.0.0.1:25000/${rewritten}`);
    assert.deepEqual(JSON.parse(pod.metadata.annotations?.['kube-registry/original-images'] ?? ''), { [name]: image });
    await assertBytes(world, name, name, LAYERS);
  }
  await removePods(world);
});

/** The webhook begins once it has seen every agent. */
async function rewriting(): Promise<void> {
  await until(async () => {
    const pod = await createPod(world, 'probe', 'probe:1');
    await removePods(world, 'probe');
    return pod.spec.containers[0]?.image === '127.0.0.1:25000/dockerhub/library/probe:1';
  });
}
