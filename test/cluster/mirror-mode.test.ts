import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, readdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { basename, delimiter, dirname, join } from 'node:path';
import { after, before } from 'node:test';
import { promisify } from 'node:util';
import type { Distribution } from '../support/distribution.ts';
import { makeImage } from '../support/image.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { toolPath } from '../tools/tools.ts';
import { until } from './cluster.ts';
import { imageName, KUBE_REGISTRY } from './images.ts';
import { assertBytes, createPod, ready, removePods, rewriting } from './pods.ts';
import { privateImageSteps } from './private-images.ts';
import { createSteps } from './steps.ts';
import { CHART, install, NAMESPACE, RELEASE, startWorld, values, type World } from './world.ts';

// On the current containerd, and with an API server that has MutatingAdmissionPolicy: mirror mode,
// then the commands of the README, policy mode, and private images.

const run = promisify(execFile);
const LAYERS = [100_000, 1_000_000];
/** A host that is not configured. */
const UNKNOWN = 'unknown.example.net';
const IMAGES = ['web:1', 'ghcr.io/acme/web:1', 'quay.io/acme/web:1', 'registry.k8s.io/web:1', `${UNKNOWN}/acme/web:1`];
/** The names of the first four after rewriting. */
const REWRITTEN = ['dockerhub/library/web:1', 'ghcr/acme/web:1', 'quay/acme/web:1', 'k8s/web:1'].map((name) => `127.0.0.1:25000/${name}`);
/** The namespace of the README. */
const QUICK_START = 'kube-registry';
/** Folders of hosts.toml files: the hosts of the default upstreams, those that
 *  `registry.otherHosts` lists by name, all others, and the names of rewritten images. */
const FOLDERS = `
  docker.io gcr.io ghcr.io index.docker.io k8s.gcr.io quay.io registry-1.docker.io registry.k8s.io
  mcr.microsoft.com _default 127.0.0.1_25000_
`
  .trim()
  .split(/\s+/)
  .sort();

let world: World;
let unknown: Distribution;
const image = (): ReturnType<typeof makeImage> => makeImage({ seed: 'web', layers: LAYERS, program: world.program });
before(async () => {
  world = await startWorld({ containerd: '2.4', kubeApiServer: await toolPath('kube-apiserver-1.36') });
  await world.outside.push('dockerhub', 'library/web', '1', image());
  for (const name of ['ghcr', 'quay'] as const) await world.outside.push(name, 'acme/web', '1', image());
  await world.outside.push('k8s', 'web', '1', image());
  unknown = await world.outside.open(UNKNOWN, { repository: 'acme/web', image: image() });
});
after(() => world[Symbol.asyncDispose]());
const step = createSteps(() => world);

/** Removes the pods and the image, as if the node had never had it. */
async function forgetAll(): Promise<void> {
  await removePods(world);
  await world.forget(image().root.digest);
}

async function runAll(): Promise<void> {
  for (const [n, name] of IMAGES.entries()) {
    const pod = await createPod(world, `pod-${n}`, name);
    assert.equal(pod.spec.containers[0]?.image, name, 'the pod stays as it is written');
    await ready(world, `pod-${n}`);
    await assertBytes(world, `pod-${n}`, 'web', LAYERS);
    await world.kubectl(['delete', 'pod', '--now', `pod-${n}`]);
    await world.forget(image().root.digest);
  }
}

async function isStopped(stopped: boolean): Promise<void> {
  for (const upstream of [...Object.values(world.outside.upstreams), unknown]) await (stopped ? upstream.stop() : upstream.start());
}

step('promise 17: in mirror mode, pods are not changed, and containerd requests images of every host from the agent', async () => {
  const mirror = { enabled: true, directory: world.certificatesDirectory };
  const registry = { otherHosts: ['mcr.microsoft.com', '*'] };
  await install(world, values({ objectStorage: { enabled: false }, registry, agent: { mirror } }));
  await until(async () => (await readdir(world.certificatesDirectory)).length === FOLDERS.length);
  assert.deepEqual((await readdir(world.certificatesDirectory)).sort(), FOLDERS);
  await runAll();
  await isStopped(true);
  await runAll(); // so all of it is in the registry
  await isStopped(false);
});

step('without the registry, and without the agent, images come from upstream', async () => {
  await world.kubectl(['-n', NAMESPACE, 'scale', `deployment/${RELEASE}-registry`, '--replicas=0']);
  await world.kubectl(['-n', NAMESPACE, 'wait', '--for=delete', 'pod', '-l', 'app.kubernetes.io/component=registry', '--timeout=15m']);
  await runAll();
});

step('after an uninstallation, no files are left on the node, and images are pulled as before', async () => {
  await world.helm(['uninstall', RELEASE, '--namespace', NAMESPACE, '--wait']);
  await until(async () => (await readdir(world.certificatesDirectory)).length === 0);
  await runAll();
  await world.kubectl(['delete', 'namespace', NAMESPACE]);
});

step("the README's quick start, line by line", async (t) => {
  const readme = await readFile(join(CHART, '../README.md'), 'utf8');
  const [block = ''] = /(?<=```sh\n)helm repo add[^`]*/.exec(readme) ?? [];
  const lines = block.trim().split('\n');
  assert.ok(lines.length >= 5, block);
  await world.outside.push('dockerhub', 'library/nginx', '1.27', makeImage({ seed: 'nginx', layers: LAYERS, program: world.program }));
  const version = /^appVersion: (.*)$/m.exec(await readFile(join(CHART, 'Chart.yaml'), 'utf8'))?.[1] ?? '';
  // The image that a release would have published; the node has it already.
  const published = { registry: 'ghcr.io', repository: 'qiudeng7/kube-registry', tag: version };
  await world.ctr('images', 'tag', imageName(KUBE_REGISTRY), imageName(published));
  await using repository = await serveCharts();
  await using shell = await createShell(world);
  for (const line of lines) {
    const typed = line.replace(/https:\/\/\S+\.github\.io\/kube-registry/, repository.url);
    t.diagnostic(`${typed}\n${await shell.type(typed)}`);
  }
  const installed = await readFile(join(CHART, '../docs/install.md'), 'utf8');
  const [more = ''] = /(?<=Check that it works:\n\n```sh\n)[^`]*/.exec(installed) ?? [];
  const [, runHello = '', showImage = ''] = more.trim().split('\n');
  await shell.type(runHello);
  assert.equal((await shell.type(showImage)).trim(), '127.0.0.1:25000/dockerhub/library/nginx:1.27');
  await ready(world, 'hello');
});

step('an image volume is rewritten, pulled and mounted', async () => {
  const volume = { name: 'files', image: { reference: 'ghcr.io/acme/web:1' } };
  const container = { name: 'main', image: 'web:1', volumeMounts: [{ name: 'files', mountPath: '/files' }] };
  const pod = await createPod(world, 'volume', '', { containers: [container], volumes: [volume] });
  assert.equal(pod.spec.volumes?.[0]?.image?.reference, '127.0.0.1:25000/ghcr/acme/web:1');
  await ready(world, 'volume');
  await forgetAll();
});

step('promise 25: in policy mode the API server alone rewrites images, and nodes pull them through the registry', async () => {
  const mode = ['--reset-then-reuse-values', '--set', 'webhook.mode=policy'];
  await world.helm(['upgrade', RELEASE, CHART, '--namespace', QUICK_START, '--wait', '--timeout', '15m', ...mode]);
  const webhook = ['mutatingwebhookconfigurations,deployments', '--selector', 'app.kubernetes.io/component=webhook'];
  assert.equal(await world.kubectl(['-n', QUICK_START, 'get', '-o', 'name', ...webhook]), '');
  await rewriting(world);
  for (const [n, name] of REWRITTEN.entries()) {
    const pod = await createPod(world, `pod-${n}`, IMAGES[n] ?? '');
    assert.equal(pod.spec.containers[0]?.image, name);
    assert.deepEqual(JSON.parse(pod.metadata.annotations?.['kube-registry/original-images'] ?? ''), { main: IMAGES[n] });
    await ready(world, `pod-${n}`);
    await assertBytes(world, `pod-${n}`, 'web', LAYERS);
    await world.kubectl(['delete', 'pod', '--now', `pod-${n}`]);
    await world.forget(image().root.digest);
  }
});

step('promise 25: while no agent is ready, the policy rewrites nothing', async () => {
  const agents = ['-n', QUICK_START, 'patch', 'daemonset', `${RELEASE}-agent`, '--type=merge', '--patch'];
  const selector = (value: string | null): string => JSON.stringify({ spec: { template: { spec: { nodeSelector: { none: value } } } } });
  const isPlain = async (): Promise<boolean> => {
    const pod = await createPod(world, 'plain', 'web:1');
    await removePods(world);
    return pod.spec.containers[0]?.image === 'web:1';
  };
  await world.kubectl([...agents, selector('x')]);
  await until(isPlain);
  await world.kubectl([...agents, selector(null)]);
  await rewriting(world);
});

privateImageSteps(step, { world: () => world, namespace: QUICK_START });

interface Shell extends AsyncDisposable {
  /** Returns its stdout. @throws Error with stderr */
  type(line: string): Promise<string>;
}

/** A user's shell on the node, with kubectl and helm configured for the cluster. */
async function createShell({ network, plane }: World): Promise<Shell> {
  const home = await temporaryDirectory();
  const kubectl = join(home.path, 'kubectl');
  await writeFile(kubectl, `#!/bin/sh\nexec ${await toolPath('kube-all')} kubectl "$@"\n`);
  await chmod(kubectl, 0o755);
  const path = [home.path, dirname(await toolPath('helm')), process.env['PATH']].join(delimiter);
  const env = { ...process.env, PATH: path, HOME: home.path, KUBECONFIG: plane.kubeconfig };
  return {
    async type(line) {
      return (await run(...network.wrap('sh', ['-c', line]), { env })).stdout;
    },
    [Symbol.asyncDispose]: () => home[Symbol.asyncDispose](),
  };
}

/** A Helm repository with this chart, as the release publishes it. */
async function serveCharts(): Promise<AsyncDisposable & { url: string }> {
  const directory = await temporaryDirectory();
  const helm = await toolPath('helm');
  const server = createServer((request, response) => {
    readFile(join(directory.path, basename(request.url ?? ''))).then(
      (content) => response.end(content),
      () => response.writeHead(404).end(),
    );
  });
  const [host] = world.network.outside;
  server.listen(0, host);
  await once(server, 'listening');
  const url = `http://${host}:${(server.address() as AddressInfo).port}`;
  await run(helm, ['package', CHART, '--destination', directory.path]);
  await run(helm, ['repo', 'index', directory.path, '--url', url]);
  return {
    url,
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await directory[Symbol.asyncDispose]();
    },
  };
}
