import assert from 'node:assert/strict';
import { startInjector } from './support/injector.ts';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { render, type Manifest } from '../chart/render.ts';
import { startControlPlane, type ControlPlane } from './support/control-plane.ts';
import { startProgram } from './support/program.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';
import { createReviewer, REVIEW, startWebhook } from './support/webhook.ts';

const NAMESPACE = 'kube-registry';
const NAME = 'kube-registry-webhook';
const REWRITTEN = '127.0.0.1:25000/dockerhub/library/nginx:1';

async function until<T>(what: string, ask: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < 900; tries++) {
    const found = await ask();
    if (found !== undefined) return found;
    await delay(200);
  }
  throw new Error(`not within three minutes: ${what}`);
}

test('promise W1: whatever arrives over HTTPS is allowed and counted, and the process lives', async () => {
  await using temporary = await temporaryDirectory();
  await using reviewer = await createReviewer(temporary.path);
  await using webhook = await startWebhook({ tls: reviewer.tls });
  const post = (body: string, type?: string, path?: string) =>
    reviewer.post(webhook, body, { ...(type === undefined ? {} : { type }), ...(path === undefined ? {} : { path }) });
  const rows: [number, ...Parameters<typeof post>][] = [
    [400, 'no json'],
    [400, ''],
    [400, '{"request":null}'],
    [200, '{"request":{"uid":"u","operation":"DELETE","object":null}}'],
    [200, '{"request":{"uid":"u","object":{"spec":{"containers":"none"}}}}'],
    [415, REVIEW, 'text/plain'],
    [413, `{"x":"${'x'.repeat(10 * 2 ** 20)}"}`],
    [404, REVIEW, 'application/json', '/other'],
  ];
  for (const [status, ...parts] of rows) {
    const answer = await post(...parts);
    assert.equal(answer.status, status);
    assert.equal(answer.response.allowed, true);
    if (answer.status === 200) assert.equal(answer.response.uid, 'u');
  }
  const plain = connect(webhook.port, '127.0.0.1', () => plain.write('POST /mutate HTTP/1.1\r\nhost: x\r\n\r\n'));
  await new Promise((resolve) => plain.on('error', resolve).on('close', resolve).resume());
  const { status, response } = await post(REVIEW, 'application/json', '/mutate?timeout=2s');
  assert.equal(status, 200);
  assert.match(Buffer.from(response.patch ?? '', 'base64').toString(), /127\.0\.0\.1:25000\/dockerhub\/library\/nginx/);
  const metrics = await (await fetch(`${webhook.admin}/metrics`)).text();
  assert.match(metrics, /kube_registry_reviews_total\{outcome="rewritten"\} 1/);
  assert.match(metrics, /kube_registry_reviews_total\{outcome="error"\} [78]/);
});

/** Images of every host that is served by default, and their names in the registry. */
const HOSTS: Record<string, string> = {
  'docker.io/acme/app:1': 'dockerhub/acme/app:1',
  'gcr.io/acme/app:1': 'gcr/acme/app:1',
  'ghcr.io/acme/app:1': 'ghcr/acme/app:1',
  'quay.io/acme/app:1': 'quay/acme/app:1',
  'registry.k8s.io/app:1': 'k8s/app:1',
  ...Object.fromEntries(
    `mcr.microsoft.com nvcr.io public.ecr.aws docker.elastic.co lscr.io registry.gitlab.com registry.access.redhat.com cgr.dev cr.l5d.io
     cr.fluentbit.io docker.n8n.io registry.ollama.ai europe-west1-docker.pkg.dev`
      .split(/\s+/)
      .map((host) => [`${host}/acme/app:1`, `${host}/acme/app:1`]),
  ),
};

const manifest = (name: string, more: Record<string, unknown> = {}, metadata: Record<string, unknown> = {}): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default', ...metadata },
    spec: { containers: [{ name: 'main', image: 'nginx:1' }], ...more },
  });

/** The objects that the chart installs for the webhook apart from its pods: its account with its
 *  permissions, its empty Secret and its configuration, which calls the given port. */
async function installed(port: number): Promise<Manifest[]> {
  const all = await render({ release: 'kube-registry', namespace: NAMESPACE });
  const kinds = ['ServiceAccount', 'Role', 'RoleBinding', 'ClusterRole', 'ClusterRoleBinding', 'Secret', 'MutatingWebhookConfiguration'];
  const own = all.filter(({ kind, metadata }) => kinds.includes(kind) && metadata.name.startsWith(NAME));
  for (const manifest of own) {
    const [hook] = (manifest['webhooks'] ?? []) as { clientConfig: { service: { port: number } } }[];
    if (hook !== undefined) hook.clientConfig.service.port = port;
    if (['ServiceAccount', 'Role', 'RoleBinding', 'Secret'].includes(manifest.kind))
      manifest.metadata = { ...manifest.metadata, namespace: NAMESPACE };
  }
  return own;
}

/** A control plane with the chart's objects, and two replicas of the webhook, started at the same
 *  time with the rights of the chart's account. The API server calls the first. */
async function startCluster() {
  await using stack = new AsyncDisposableStack();
  const cluster = stack.use(
    await startControlPlane({ controllers: ['serviceaccount-controller', 'deployment-controller', 'replicaset-controller'] }),
  );
  const create = (object: unknown) => cluster.kubectl(['create', '-f', '-'], JSON.stringify(object));
  await cluster.kubectl(['create', 'namespace', NAMESPACE]);
  const port = await freePort();
  for (const manifest of await installed(port)) await create(manifest);
  const token = (await cluster.kubectl(['--namespace', NAMESPACE, 'create', 'token', NAME])).trim();
  const { path } = stack.use(await temporaryDirectory());
  const config = JSON.parse(await readFile(cluster.kubeconfig, 'utf8')) as { users: unknown };
  const kubeconfig = join(path, 'kubeconfig');
  await writeFile(kubeconfig, JSON.stringify({ ...config, users: [{ name: 'test', user: { token } }] }));

  const certificates = { namespace: NAMESPACE, secret: `${NAME}-tls`, service: NAME, configuration: NAME };
  const [webhook, replica] = await Promise.all(
    [port, await freePort()].map(async (port) =>
      stack.use(await startWebhook({ certificates, listen: `127.0.0.1:${port}` }, { KUBECONFIG: kubeconfig })),
    ),
  );
  assert.ok(webhook !== undefined && replica !== undefined);
  // The API server calls a Service of this type by its name; it replaces the webhook's ClusterIP,
  // since there is no kube-proxy.
  await create({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: NAME, namespace: NAMESPACE },
    spec: { type: 'ExternalName', externalName: 'localhost' },
  });
  for (const namespace of ['default', 'kube-system'])
    await until('service accounts', () =>
      cluster.kubectl(['--namespace', namespace, 'get', 'serviceaccount', 'default']).catch(() => undefined),
    );
  await until('the API server trusts and calls the webhook', async () =>
    (await cluster.kubectl(['create', '--dry-run=server', '-o', 'json', '-f', '-'], manifest('probe'))).includes(REWRITTEN)
      ? true
      : undefined,
  );
  const owned = stack.move();
  return { cluster, webhook, replica, replicaPort: replica.port, port, kubeconfig, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** The certificate that a server shows. */
async function shownBy(port: number): Promise<string> {
  const socket = connectTls({ port, host: '127.0.0.1', servername: `${NAME}.${NAMESPACE}.svc`, rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const { fingerprint256 } = socket.getPeerCertificate();
  socket.destroy();
  return fingerprint256;
}

async function imagesOf({ kubectl }: ControlPlane, name: string, namespace = 'default'): Promise<string[]> {
  const pod = JSON.parse(await kubectl(['--namespace', namespace, 'get', 'pod', name, '-o', 'json'])) as {
    spec: Record<'containers' | 'ephemeralContainers', { image: string }[] | undefined>;
  };
  return [...(pod.spec.containers ?? []), ...(pod.spec.ephemeralContainers ?? [])].map(({ image }) => image);
}

test('promise W1: on a real API server pods are rewritten or left unchanged as expected, and created without the webhook too', async () => {
  await using own = await startCluster();
  const { cluster, webhook, replica } = own;
  const { kubectl } = cluster;

  assert.equal(await shownBy(webhook.port), await shownBy(replica.port), 'replicas that start at once agree on one certificate');
  assert.doesNotMatch(webhook.output() + replica.output(), /certificate-check-failed/, 'the rights that the chart grants are sufficient');
  const others = ['get', 'secret', '--namespace', 'kube-system', '--kubeconfig', own.kubeconfig];
  await assert.rejects(kubectl(others), /forbidden/, 'and is no more than that');

  const dry = await kubectl(['run', 'dry', '--image=nginx:1', '--dry-run=server', '-o', 'json']);
  assert.ok(dry.includes(REWRITTEN));
  await assert.rejects(kubectl(['get', 'pod', 'dry']), /NotFound/);

  await kubectl(['run', 'hello', '--image=nginx:1']);
  assert.deepEqual(await imagesOf(cluster, 'hello'), [REWRITTEN]);
  assert.match(await kubectl(['get', 'pod', 'hello', '-o', 'yaml']), /kube-registry\/original-images: '\{"hello":"nginx:1"\}'/);

  await kubectl(['debug', 'hello', '--image=busybox:1', '--attach=false', '--', 'true']);
  assert.deepEqual(await imagesOf(cluster, 'hello'), [REWRITTEN, '127.0.0.1:25000/dockerhub/library/busybox:1']);

  await kubectl(['create', 'deployment', 'web', '--image=nginx:1', '--replicas=2']);
  const pods = await until('pods of the deployment', async () => {
    const names = (await kubectl(['get', 'pods', '-l', 'app=web', '-o', 'name'])).trim().split('\n');
    return names.length === 2 ? names : undefined;
  });
  for (const pod of pods) assert.deepEqual(await imagesOf(cluster, pod.replace('pod/', '')), [REWRITTEN]);

  const containers = Object.keys(HOSTS).map((image, n) => ({ name: `c${n}`, image }));
  await kubectl(['create', '-f', '-'], manifest('hosts', { containers }));
  assert.deepEqual(
    await imagesOf(cluster, 'hosts'),
    Object.values(HOSTS).map((name) => `127.0.0.1:25000/${name}`),
    'promise 17: every host that is served by default',
  );

  for (let twice = 0; twice < 2; twice++) await kubectl(['apply', '-f', '-'], manifest('applied'));
  assert.deepEqual(await imagesOf(cluster, 'applied'), [REWRITTEN]);

  await kubectl(['create', '-f', '-'], manifest('system', {}, { namespace: 'kube-system' }));
  assert.deepEqual(await imagesOf(cluster, 'system', 'kube-system'), ['nginx:1']);
  await kubectl(['create', '-f', '-'], manifest('labelled', {}, { labels: { 'kube-registry/rewrite': 'false' } }));
  assert.deepEqual(await imagesOf(cluster, 'labelled'), ['nginx:1']);

  const mirror = manifest(
    'static',
    { nodeName: 'node0' },
    { annotations: { 'kubernetes.io/config.mirror': 'x', 'kubernetes.io/config.source': 'file' } },
  );
  await kubectl(['--as=system:node:node0', '--as-group=system:nodes', 'create', '-f', '-'], mirror);
  assert.deepEqual(await imagesOf(cluster, 'static'), ['nginx:1']);

  const report = await startProgram('webhook', {}, { args: ['report', '--json'], env: { KUBECONFIG: cluster.kubeconfig } });
  assert.equal(await report.exited, 0, report.output());
  const lines = JSON.parse(report.output()) as { pod: string; reason: string }[];
  assert.deepEqual(Object.fromEntries(lines.map(({ pod, reason }) => [pod, reason])), {
    static: 'mirror',
    labelled: 'label',
    system: 'namespace',
  });

  const table = await startProgram('webhook', {}, { args: ['report', '--rewritten'], env: { KUBECONFIG: cluster.kubeconfig } });
  assert.equal(await table.exited, 0, table.output());
  assert.match(table.output(), /^NAMESPACE +POD +CONTAINER +IMAGE +ORIGINAL$/m);
  assert.match(table.output(), /^default +hello +hello +127\.0\.0\.1:25000\/dockerhub\/library\/nginx:1 +nginx:1$/m);

  const asked = await (await fetch(`${webhook.admin}/metrics`)).text();
  assert.doesNotMatch(asked, /outcome="excluded"/, 'what the configuration leaves out is not even asked about');
  await webhook.stop();
  await kubectl(['create', '-f', '-'], manifest('without'));
  assert.deepEqual(await imagesOf(cluster, 'without'), ['nginx:1']);
});

test('promise W3: a sidecar that another webhook injects is rewritten too', async () => {
  await using own = await startCluster();
  const { kubectl } = own.cluster;
  await using injector = await startInjector('nginx:1');
  const configuration = (await installed(0)).find(({ kind }) => kind === 'MutatingWebhookConfiguration');
  const [first] = (configuration?.['webhooks'] ?? []) as { rules: Record<string, unknown>[] }[];
  const { clientConfig } = injector;
  const webhooks = [{ ...first, reinvocationPolicy: 'Never', clientConfig, rules: [{ ...first?.rules[0], operations: ['CREATE'] }] }];
  await kubectl(['create', '-f', '-'], JSON.stringify({ ...configuration, metadata: { name: 'z-injector' }, webhooks }));
  const output = await until('the injector is called', async () => {
    const made = await kubectl(['create', '--dry-run=server', '-o', 'json', '-f', '-'], manifest('injected'));
    return made.includes('sidecar') ? made : undefined;
  });
  const { spec, metadata } = JSON.parse(output) as {
    spec: { containers: { image: string }[] };
    metadata: { annotations: Record<string, string> };
  };
  assert.deepEqual(
    spec.containers.map(({ image }) => image),
    [REWRITTEN, REWRITTEN],
  );
  assert.deepEqual(JSON.parse(metadata.annotations['kube-registry/original-images'] ?? ''), { main: 'nginx:1', sidecar: 'nginx:1' });
});

test('promise W8: while CA and certificate rotate, no call from the API server fails', async () => {
  await using own = await startCluster();
  const { cluster, webhook } = own;
  const { kubectl } = cluster;
  // A call that only takes long, on a busy machine, is no failure.
  const strict = { failurePolicy: 'Fail', timeoutSeconds: 30 };
  const patch = Object.entries(strict).map(([name, value]) => ({ op: 'replace', path: `/webhooks/0/${name}`, value }));
  await kubectl(['patch', 'mutatingwebhookconfiguration', NAME, '--type=json', '-p', JSON.stringify(patch)]);
  await delay(2000); // until the API server goes by it
  const renewals = (): number => webhook.log().filter(({ msg }) => msg === 'a new certificate is in use').length;
  assert.equal(renewals(), 1);
  await kubectl(['--namespace', NAMESPACE, 'patch', 'secret', `${NAME}-tls`, '--type=json', '-p', '[{"op":"remove","path":"/data"}]']);
  const end = Date.now() + 120_000;
  for (let callsAfter = 0; callsAfter < 5 && Date.now() < end; callsAfter += renewals() > 1 ? 1 : 0) {
    assert.match(await kubectl(['create', '--dry-run=server', '-o', 'json', '-f', '-'], manifest('again')), new RegExp(REWRITTEN));
  }
  assert.equal(renewals(), 2, 'the certificate was replaced');
});
