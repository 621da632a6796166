import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { makeImage, writeLayout, type TestImage } from '../support/image.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { FAULTS, table, assertWithinLimit, underFault, type Outcome } from './chaos.ts';
import { until } from './cluster.ts';
import { imageName, KUBE_REGISTRY } from './images.ts';
import type { UpstreamName } from './outside.ts';
import { assertBytes, createPod, logOf, podOf, ready, removePods, rewriting, type Pod } from './pods.ts';
import { createSteps } from './steps.ts';
import { compareWithDirect, type Timing } from './timing.ts';
import { CHART, install, NAMESPACE, RELEASE, renamedChart, startWorld, values, type World } from './world.ts';

// The whole product, on one cluster that the tests use one after the other. Upstreams can be
// reached only through the airport (a provider's proxy server). The first installed release has
// version 0.9.0, so that the tests can upgrade it.

const LAYERS = [100_000, 2_000_000];
const PASSWORD = 'correct horse';
const IMAGES = {
  dockerhub: { repository: 'library/web', image: 'web:1', rewritten: 'dockerhub/library/web:1' },
  ghcr: { repository: 'acme/web', image: 'ghcr.io/acme/web:1', rewritten: 'ghcr/acme/web:1' },
  quay: { repository: 'acme/web', image: 'quay.io/acme/web:1', rewritten: 'quay/acme/web:1' },
  k8s: { repository: 'web', image: 'registry.k8s.io/web:1', rewritten: 'k8s/web:1' },
} as const;
const names = Object.keys(IMAGES) as UpstreamName[];
const AGENT = '127.0.0.1:25000';
/** The same image by another name, from which an upgrade starts. */
const FORMER = { ...KUBE_REGISTRY, tag: 'former', pullPolicy: 'Never' };

let world: World;
const images = {} as Record<UpstreamName, TestImage>;
before(async () => {
  world = await startWorld();
  for (const name of names) {
    images[name] = makeImage({ seed: name, layers: LAYERS, program: world.program });
    await world.outside.push(name, IMAGES[name].repository, '1', images[name]);
  }
  await world.outside.setDirect(false);
});
after(() => world[Symbol.asyncDispose]());
const step = createSteps(() => world);

function chartValues(more: Record<string, unknown> = {}): Record<string, unknown> {
  const clash = {
    enabled: true,
    subscriptionUrl: world.outside.subscriptionUrl,
    users: [{ username: 'builds', password: PASSWORD }],
    service: { enabled: true },
  };
  return values({ registry: { local: { size: '1Gi' }, replicas: 2, serviceAccount: { listPods: true } }, clash, ...more });
}

/** A command in a pod of the chart. */
function inPod(
  workload: string,
  container: string,
  { command, input = '' }: { command: string; input?: string | Uint8Array },
): Promise<string> {
  const target = ['exec', '-i', `deployment/${RELEASE}-${workload}`, '-c', container];
  return world.kubectl(['-n', NAMESPACE, ...target, '--', 'kube-registry', ...command.split(' ')], input);
}

step('the image that the Dockerfile makes is under 350 MB', async (t) => {
  t.diagnostic(`${(world.imageSize / 1e6).toFixed(0)} MB, not compressed`);
  assert.ok(world.imageSize < 350e6);
});

step('helm installs it, with S3 in the chart and clash with a subscription, and everything answers', async () => {
  await world.ctr('images', 'tag', imageName(KUBE_REGISTRY), imageName(FORMER));
  await using chart = await renamedChart('0.9.0');
  await install(world, chartValues({ image: FORMER }), { chart: chart.path });
  await world.helm(['test', RELEASE, '--namespace', NAMESPACE]);
  await rewriting(world);
});

step('a pod of each upstream runs: webhook, containerd, agent, registry, clash, airport, upstream, and into S3', async () => {
  for (const name of names) {
    const { image, rewritten } = IMAGES[name];
    await world.kubectl(['run', name, `--image=${image}`, '--restart=Never']);
    const pod = await ready(world, name);
    assert.equal(pod.spec.containers[0]?.image, `${AGENT}/${rewritten}`);
    assert.deepEqual(JSON.parse(pod.metadata.annotations?.['kube-registry/original-images'] ?? ''), { [name]: image });
    await assertBytes(world, name, name, LAYERS);
    const [mine = [], others = []] = images[name].platforms.map(({ layers }) => layers.map(({ digest }) => digest).slice(1)); // the program is in each
    const asked = world.outside.upstreams[name].requests().map(({ path }) => path.slice(path.lastIndexOf('/') + 1));
    assert.deepEqual(
      mine.filter((digest) => !asked.includes(digest)),
      [],
      `${name} was asked for what runs`,
    );
    assert.deepEqual(
      others.filter((digest) => asked.includes(digest)),
      [],
      'and for no other platform',
    );
  }
  const { downloadTotal } = await world.outside.airport.traffic();
  assert.ok(downloadTotal > names.length * 2_000_000, `every byte came through the proxy: ${downloadTotal} bytes`);
});

step('a node without the image gets it from S3 when upstream is away, and the registry is new too', async () => {
  await removePods(world);
  await world.forget(...names.map((name) => images[name].root.digest));
  await world.outside.airport.stop();
  await world.kubectl(['-n', NAMESPACE, 'rollout', 'restart', `deployment/${RELEASE}-registry`]);
  await world.kubectl(['-n', NAMESPACE, 'rollout', 'status', `deployment/${RELEASE}-registry`, '--timeout=15m']);
  for (const name of names) {
    await createPod(world, name, IMAGES[name].image);
    await ready(world, name);
    await assertBytes(world, name, name, LAYERS);
  }
  await world.outside.airport.start();
  await removePods(world);
});

step('a digest-pinned image, init containers, image volumes and ephemeral containers are rewritten', async () => {
  const pinned = `ghcr.io/acme/web:1@${images.ghcr.root.digest}`;
  const rewritten = (name: UpstreamName): string => `${AGENT}/${IMAGES[name].rewritten}`;
  const made = await createPod(world, 'many', pinned, {
    initContainers: [{ name: 'first', image: IMAGES.quay.image, args: ['fetch', `http://${RELEASE}.${NAMESPACE}:5000/v2/`] }],
  });
  assert.equal(made.spec.initContainers?.[0]?.image, rewritten('quay'));
  assert.equal(made.spec.containers[0]?.image, `${rewritten('ghcr')}@${images.ghcr.root.digest}`);
  await ready(world, 'many');
  assert.equal((await logOf(world, 'many', 'first')).trim(), '200');

  await world.kubectl(['debug', 'many', '--image=web:1', '--container=debugger', '--profile=general', '--quiet']);
  await until(async () => (await podOf(world, 'many')).status.ephemeralContainerStatuses?.[0]?.state.running !== undefined);
  assert.equal((await podOf(world, 'many')).spec.ephemeralContainers?.[0]?.image, rewritten('dockerhub'));

  // This containerd cannot mount images; a dry run returns the rewritten reference.
  const volume = { name: 'files', image: { reference: IMAGES.k8s.image } };
  const pod = { metadata: { name: 'volume' }, spec: { containers: [{ name: 'main', image: 'web:1' }], volumes: [volume] } };
  const answer = await world.api<Pod>('POST', '/api/v1/namespaces/default/pods?dryRun=All', pod);
  assert.equal(answer.spec.volumes?.[0]?.image?.reference, rewritten('k8s'));
  await removePods(world);
});

step("clash's Service takes other pods' requests with a password, and refuses without, and never a private address", async () => {
  const host = `${RELEASE}-clash.${NAMESPACE}:7890`;
  const proxy = `http://builds:${encodeURIComponent(PASSWORD)}@${host}`;
  const answers = {
    shared: ['https://ghcr.io/v2/', proxy],
    stranger: ['https://ghcr.io/v2/', `http://${host}`],
    wrong: ['https://ghcr.io/v2/', `http://builds:wrong@${host}`],
    private: ['https://10.96.0.1/healthz', proxy],
  };
  for (const [name, [url = '', ...more]] of Object.entries(answers)) {
    await createPod(world, name, '', {
      restartPolicy: 'Never',
      containers: [{ name: 'main', image: IMAGES.dockerhub.image, args: ['fetch', url, ...more] }],
    });
  }
  const said: Record<string, string> = {};
  for (const name of Object.keys(answers)) {
    await until(async () => ['Succeeded', 'Failed'].includes((await podOf(world, name)).status.phase));
    said[name] = (await logOf(world, name)).trim();
  }
  assert.equal(said['shared'], '200');
  for (const name of ['stranger', 'wrong']) assert.match(said[name] ?? '', /Proxy Authentication Required|Forbidden/, name);
  assert.doesNotMatch(said['private'] ?? '', /^\d+$/);
  await removePods(world);
});

// `npm run bench -- pull-warm` measures the speed. Here Distribution has an advantage: it does not run
// in a pod, so the kubelet's CPU weights do not apply to it while containerd uses all cores.
test('a pull of a cached image takes less than twice as long as from Distribution', async (t) => {
  const ratioOf = ({ throughRegistry, direct }: Timing): number => throughRegistry / direct;
  const timing = await compareWithDirect(world, (soFar) => ratioOf(soFar) < 1.2);
  const ratio = ratioOf(timing);
  t.diagnostic(
    `100 MiB: ${Math.round(timing.throughRegistry)} ms through agent and registry, ${Math.round(timing.direct)} ms directly; ${ratio.toFixed(2)}`,
  );
  assert.ok(ratio < 2, `${ratio}`);
});

step('what the cluster uses, holds and goes out by can be looked at', async (t) => {
  await createPod(world, 'web', IMAGES.dockerhub.image);
  await ready(world, 'web');
  // The webhook itself may not list pods, but the user may.
  const input = await world.kubectl(['get', 'pods', '--all-namespaces', '-o', 'json']);
  const views = {
    'webhook report': await inPod('webhook', 'webhook', { command: 'webhook report --pods -', input }),
    'webhook report --rewritten': await inPod('webhook', 'webhook', { command: 'webhook report --rewritten --pods -', input }),
    'cache ls': await inPod('registry', 'registry', { command: 'cache ls' }),
    // The images of CoreDNS and the S3 server are in none of these upstreams.
    'cache warm --cluster': await inPod('registry', 'registry', { command: 'cache warm --cluster' }).catch(outputOf),
    'clash status': await inPod('registry', 'clash', { command: 'clash status' }),
  };
  for (const [command, output] of Object.entries(views)) t.diagnostic(`kube-registry ${command}\n${output}`);
  assert.match(views['webhook report'], /kube-system +coredns\S* +coredns +\S+ +its namespace is excluded/);
  assert.match(views['webhook report --rewritten'], /default +web +main +127\.0\.0\.1:25000\/dockerhub\/library\/web:1 +web:1/);
  for (const name of names) assert.match(views['cache ls'], new RegExp(`^${IMAGES[name].rewritten} +linux/amd64 of 2 `, 'm'));
  assert.match(views['cache warm --cluster'], /^warm +\S*library\/web:1 /m);
  assert.match(views['clash status'], /^node +node$/m);
  await removePods(world);
});

step('an image that no upstream has is imported from a file, and a pod runs it', async () => {
  const image = makeImage({ seed: 'imported', layers: LAYERS, program: world.program });
  await using layout = await temporaryDirectory();
  await writeLayout(layout.path, image);
  const { stdout: input } = await promisify(execFile)('tar', ['-c', '-C', layout.path, '.'], { encoding: 'buffer', maxBuffer: 2 ** 28 });
  await inPod('registry', 'registry', { command: 'cache import - --name ghcr.io/acme/imported:1', input });
  await createPod(world, 'imported', 'ghcr.io/acme/imported:1');
  await ready(world, 'imported');
  await assertBytes(world, 'imported', 'imported', LAYERS);
  await removePods(world);
});

/** The output of a command that exited with 1 because it found a problem. */
function outputOf(error: Error & { code?: unknown; stdout?: string; stderr?: string }): string {
  if (error.code !== 1) throw error;
  return `${error.stdout}${error.stderr}`;
}

test('docs/operations.md states the limits that are tested', async () => {
  const text = await readFile(join(CHART, '../docs/operations.md'), 'utf8');
  for (const { name, limit } of FAULTS) assert.ok(text.includes(`\n| ${name} | ${limit} s |`), name);
});

const outcomes: Record<string, Outcome> = {};
for (const fault of FAULTS) {
  step(`${fault.name}: no pod is denied, stuck for longer than stated, or gets wrong bytes`, async () => {
    const outcome = (outcomes[fault.name] = await underFault(world, fault));
    assertWithinLimit(fault.name, outcome);
    await rewriting(world);
  });
}

step('an upgrade from the version before fails no pull', async (t) => {
  await upgrade(t, 'an upgrade', chartValues());
  t.diagnostic(table(outcomes));
});

step(
  'on a node that shares with nobody, upgrades that enable agent.share and keep it fail no pull, and an agent that is killed delays none longer than stated',
  async (t) => {
    const agent = { share: { enabled: true } };
    await upgrade(t, 'sharing is enabled', chartValues({ agent, image: FORMER }));
    await until(async () => (await world.kubectl(['-n', NAMESPACE, 'logs', `daemonset/${RELEASE}-agent`])).includes('"sharing-blobs"'));
    const killed = await underFault(world, {
      name: 'An agent that shares is killed',
      limit: 60,
      strike: () => world.killContainers('agent'),
    });
    assertWithinLimit('an agent that shares is killed', killed);
    await upgrade(t, 'an upgrade of agents that share', chartValues({ agent }));
  },
);

/** @throws Error: a pull failed, or a pod took too long */
async function upgrade(t: TestContext, name: string, settings: Record<string, unknown>): Promise<void> {
  let over = false;
  const fault = { name, pods: 15, limit: 60, strike: () => install(world, settings).finally(() => (over = true)) };
  const port = watchPort(world, AGENT);
  const [pulls, outcome] = await Promise.all([pullAgainAndAgain(() => over), underFault(world, fault)]);
  assertWithinLimit(name, outcome);
  const { asked, refused } = await port.stop();
  t.diagnostic(`${name}: ${pulls} pulls of 50 MiB meanwhile; the slowest pod was ready after ${outcome.slowest.toFixed(1)} s`);
  t.diagnostic(`${refused} of ${asked} connections to the agent's port refused`);
  assert.equal(outcome.rewritten, fault.pods);
  assert.deepEqual(outcome.failures, []);
  assert.ok(asked > 100);
  assert.equal(refused, 0);
}

/** Connects to a port of the node every 20 ms. */
function watchPort({ network }: World, address: string): { stop(): Promise<{ asked: number; refused: number }> } {
  const { hostname: host, port } = new URL(`http://${address}`);
  const script = `
    let asked = 0, refused = 0;
    setInterval(() => {
      asked++;
      const socket = require('node:net').connect(${port}, '${host}', () => socket.destroy());
      socket.on('error', ({ code }) => (refused += code === 'ECONNREFUSED' ? 1 : 0));
    }, 20);
    process.stdin.resume().on('end', () => process.stdout.end(JSON.stringify({ asked, refused }), () => process.exit()));`;
  const [command, args] = network.wrap(process.execPath, ['--eval', script]);
  const running = promisify(execFile)(command, args);
  return {
    async stop() {
      running.child.stdin?.end();
      return JSON.parse((await running).stdout) as { asked: number; refused: number };
    },
  };
}

/** @throws Error: a pull failed */
async function pullAgainAndAgain(enough: () => boolean): Promise<number> {
  const image = makeImage({ seed: 'again', layers: [50 * 2 ** 20], architectures: ['amd64'] });
  await world.outside.push('quay', 'acme/again', '1', image);
  for (let count = 0; ; count++) {
    await world.cri('pull', `${AGENT}/quay/acme/again:1`);
    await world.forget(image.root.digest);
    if (enough()) return count + 1;
  }
}

step('it is uninstalled webhook first: nothing is left but the claim, and pods that run go on', async () => {
  await createPod(world, 'keeper', IMAGES.dockerhub.image);
  await ready(world, 'keeper');
  await install(world, chartValues({ webhook: { enabled: false } }));
  assert.equal((await createPod(world, 'plain', 'plain:1')).spec.containers[0]?.image, 'plain:1');
  await world.helm(['uninstall', RELEASE, '--namespace', NAMESPACE, '--wait']);
  const kinds = 'deployments,daemonsets,replicasets,pods,services,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies';
  const budgets = 'poddisruptionbudgets,resourcequotas,persistentvolumeclaims,leases';
  await world.kubectl(['-n', NAMESPACE, 'wait', '--for=delete', 'pods', '--all', '--timeout=15m']);
  const left = await world.kubectl(['-n', NAMESPACE, 'get', `${kinds},${budgets}`, '-o', 'name']);
  assert.deepEqual(left.trim().split('\n'), [
    'configmap/kube-root-ca.crt',
    'serviceaccount/default',
    `persistentvolumeclaim/${RELEASE}-object-storage`,
  ]);
  const wide = await world.kubectl(['get', 'mutatingwebhookconfigurations,clusterroles,clusterrolebindings', '-o', 'name']);
  assert.doesNotMatch(wide, /kube-registry/);
  assert.equal(await accepts(world, AGENT), false, 'the port on the node is free');
  const keeper = await podOf(world, 'keeper');
  assert.equal(keeper.status.containerStatuses?.[0]?.restartCount, 0);
  assert.ok(keeper.status.containerStatuses[0]?.state.running);
});

/** On the node. */
async function accepts({ network }: World, address: string): Promise<boolean> {
  const [command, args] = network.wrap(process.execPath, ['--eval', `fetch('http://${address}/v2/').catch(() => process.exit(1))`]);
  return promisify(execFile)(command, args).then(
    () => true,
    () => false,
  );
}
