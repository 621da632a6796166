import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { pino } from 'pino';
import { Agent, request } from 'undici';
import { render } from '../chart/render.ts';
import { isAbandonedBy } from '../src/commands/wiring/pull-secrets.ts';
import { connectKubernetes } from '../src/kubernetes/client.ts';
import { parseRepository } from '../src/oci/reference.ts';
import { createPullSecrets } from '../src/pull-secrets/pull-secrets.ts';
import { startControlPlane } from './support/control-plane.ts';
import { startProgram } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { createReviewer, startWebhook } from './support/webhook.ts';

const IMAGE = 'ghcr.io/acme/app:1';
const PUBLIC = '127.0.0.1:25000/ghcr/acme/app:1';
const PRIVATE = /^127\.0\.0\.1:25000\/by-([a-z2-7]{26})\/ghcr\/acme\/app:1$/;
const NAMESPACE = 'images';
const ACCOUNT = 'test-kube-registry-webhook';

const auths = (host: string, password = 'pw') => ({ auths: { [host]: { username: 'robot', password } } });
function secretOf(namespace: string, name: string, config: unknown): string {
  const data = { '.dockerconfigjson': Buffer.from(JSON.stringify(config)).toString('base64') };
  return JSON.stringify({ apiVersion: 'v1', kind: 'Secret', type: 'kubernetes.io/dockerconfigjson', metadata: { namespace, name }, data });
}

/** A real API server with the namespaces team-a and team-b, of which the webhook may read the
 *  first, with the rights that the chart gives; and the webhook. */
async function startCluster(t: { after: (stop: () => Promise<void>) => void }) {
  await using stack = new AsyncDisposableStack();
  const cluster = stack.use(await startControlPlane());
  const { path } = stack.use(await temporaryDirectory());
  for (const namespace of [NAMESPACE, 'team-a', 'team-b']) await cluster.kubectl(['create', 'namespace', namespace]);
  const manifests = await render({ values: { webhook: { pullSecrets: 'use' }, pullSecrets: { namespaces: ['team-a'] } } });
  for (const manifest of manifests.filter(({ metadata }) => metadata.name.endsWith('-pull-secrets')))
    await cluster.kubectl(['create', '-f', '-'], JSON.stringify(manifest));
  const keyFile = join(path, 'key');
  await writeFile(keyFile, 'a key of 16 characters and more');
  const put = async (namespace: string, name: string, config: unknown) =>
    void (await cluster.kubectl(['apply', '--server-side', '-f', '-'], secretOf(namespace, name, config)));
  await put('team-a', 'first', auths('ghcr.io'));
  await put('team-b', 'first', auths('ghcr.io'));
  const reviewer = stack.use(await createReviewer(path));
  const kubeconfig = await cluster.kubeconfigOf(`system:serviceaccount:${NAMESPACE}:${ACCOUNT}`, [
    'system:serviceaccounts',
    'system:authenticated',
  ]);
  const pullSecrets = { namespaces: ['team-a', 'team-b'], keyFile };
  const rest = { pullSecrets, log: { level: 'info', format: 'json' } };
  const webhook = stack.use(await startWebhook({ tls: reviewer.tls, pullSecrets: 'use' }, { KUBECONFIG: kubeconfig }, rest));

  /** The image of a pod in team-a, as the webhook leaves it. `more`: bytes by which the pod is
   *  larger. */
  async function imageOf(secrets: readonly string[], { namespace = 'team-a', image = IMAGE, more = 0 } = {}): Promise<string> {
    const spec = { containers: [{ name: 'a', image }], imagePullSecrets: secrets.map((name) => ({ name })) };
    const object = { metadata: { annotations: { padding: 'x'.repeat(more) } }, spec };
    const { response } = await reviewer.post(webhook, JSON.stringify({ request: { uid: 'u', operation: 'CREATE', namespace, object } }));
    const patch = JSON.parse(Buffer.from(response.patch ?? 'W10=', 'base64').toString()) as { path: string; value: string }[];
    return patch.find((operation) => operation.path === '/spec/containers/0/image')?.value ?? image;
  }
  const owned = stack.move();
  t.after(() => owned.disposeAsync());
  return { cluster, webhook, keyFile, kubeconfig, pullSecrets, put, imageOf };
}

const idOf = (image: string): string => PRIVATE.exec(image)?.[1] ?? '';

test('promise 18: the webhook follows the Secrets of a real API server, with the rights that the chart gives it', async (t) => {
  const { cluster, webhook, keyFile, kubeconfig, pullSecrets, put, imageOf } = await startCluster(t);
  const first = await imageOf(['first']);
  assert.match(first, PRIVATE, 'Secrets are known when the webhook is ready');
  // A pod that is reviewed while the machine is too busy to start the thread in time stays unchanged.
  await until(async () => (await imageOf(['first'], { more: 200_000 })) === first, 'a large pod, reviewed by another thread');
  assert.equal(await imageOf([]), PUBLIC);
  assert.equal(await imageOf(['first'], { image: 'quay.io/a/b' }), '127.0.0.1:25000/quay/a/b');
  assert.equal(await imageOf(['first'], { namespace: 'team-b' }), IMAGE, 'its Secrets may not be read');

  assert.equal(await imageOf(['later']), IMAGE, 'a Secret that is not there');
  await put('team-a', 'later', auths('ghcr.io/acme'));
  await until(async () => PRIVATE.test(await imageOf(['later'])), 'a new Secret is seen');
  assert.notEqual(idOf(await imageOf(['later'])), idOf(first));

  await put('team-a', 'later', auths('quay.io'));
  await until(async () => (await imageOf(['later'])) === PUBLIC, 'a change is seen');
  await put('team-a', 'first', auths('ghcr.io', 'another password'));
  await cluster.kubectl(['-n', 'team-a', 'delete', 'secret', 'later']);
  await until(async () => (await imageOf(['later'])) === IMAGE, 'a deleted Secret is no longer used');
  assert.equal(await imageOf(['first']), first, 'a new password changes no name');

  await cluster.kubectl(['-n', 'team-a', 'delete', 'secret', 'first']);
  await put('team-a', 'first', auths('ghcr.io'));
  await until(async () => !['', idOf(first)].includes(idOf(await imageOf(['first']))), 'a new Secret of the same name has a new id');

  const second = await imageOf(['first']);
  await writeFile(keyFile, 'another key of 16 characters and more');
  await until(async () => !['', idOf(second)].includes(idOf(await imageOf(['first']))), 'a new key makes new ids');

  const pods = {
    items: [
      {
        metadata: { namespace: 'team-a', name: 'p' },
        spec: { containers: [{ name: 'a', image: IMAGE }], imagePullSecrets: [{ name: 'none' }] },
      },
    ],
  };
  await writeFile(`${keyFile}.pods`, JSON.stringify(pods));
  const config = { webhook: { pullSecrets: 'use' }, pullSecrets };
  const report = await startProgram('webhook', config, { args: ['report', '--pods', `${keyFile}.pods`], env: { KUBECONFIG: kubeconfig } });
  assert.equal(await report.exited, 0, report.output());
  assert.match(report.output(), /names a pull secret that does not exist/);
  assert.match(report.output(), /some pull secrets cannot be read/);

  const metrics = await (await fetch(`${webhook.admin}/metrics`)).text();
  assert.match(metrics, /kube_registry_pull_secrets\{state="usable"\} 1/);
  assert.match(metrics, /kube_registry_pull_secret_watches_failing 2/);
  assert.equal(webhook.log().filter(({ event }) => event === 'pull-secrets-forbidden').length, 2, 'told once for each type');
  for (const text of [metrics, webhook.output(), report.output()]) assert.doesNotMatch(text, /by-[a-z2-7]{26}/, 'no id is shown');
  assert.doesNotMatch(webhook.output() + metrics, /robot|"pw"|password"/);
});

test('promise 18: while the API server is down, the known secrets stay in use, and afterwards no change has been missed', async (t) => {
  const { cluster, put, imageOf } = await startCluster(t);
  const known = await imageOf(['first']);
  await cluster.stop();
  assert.equal(await imageOf(['first']), known);
  await cluster.start();
  await until(async () => cluster.kubectl(['get', '--raw', '/readyz']).then(Boolean, () => false), 'the API server is back');
  await put('team-a', 'second', auths('ghcr.io'));
  await cluster.kubectl(['-n', 'team-a', 'delete', 'secret', 'first']);
  await until(async () => PRIVATE.test(await imageOf(['second'])), 'a Secret made after the outage is seen');
  await until(async () => (await imageOf(['first'])) === IMAGE, 'a Secret deleted afterwards is no longer used');
});

test('promise 18: a repository of a deleted Secret counts as abandoned, but not while a Secret may be unknown', async (t) => {
  const { cluster, keyFile, put } = await startCluster(t);
  const stop = new AbortController();
  t.after(() => stop.abort());
  const log = pino({ level: 'silent' });
  const kubernetes = await connectKubernetes({ KUBECONFIG: cluster.kubeconfig });
  const key = () => readFile(keyFile, 'utf8');
  const options = { namespaces: 'all', key, keepsPasswords: true, log, signal: stop.signal } as const;
  const secrets = await createPullSecrets(kubernetes, options);
  await secrets.complete;
  const isAbandoned = isAbandonedBy(secrets);
  const repository = parseRepository(`by-${secrets.find('team-a', 'first')?.entries[0]?.id}/ghcr/acme/app`);
  assert.equal(isAbandoned(repository), false, 'its Secret exists');
  assert.equal(isAbandoned(parseRepository('ghcr/acme/app')), false, 'no pull secret is for it');
  await cluster.kubectl(['-n', 'team-a', 'delete', 'secret', 'first']);
  await until(async () => Promise.resolve(isAbandoned(repository)), 'the Secret is gone');

  await cluster.stop();
  await until(async () => Promise.resolve(!secrets.isCurrent()), 'the outage is noticed');
  assert.equal(isAbandoned(repository), false, 'a new Secret may be unknown');
  await cluster.start();
  await until(async () => Promise.resolve(isAbandoned(repository)), 'the Secrets have been read again');
  await put('team-a', 'first', auths('ghcr.io'));
  assert.equal(isAbandoned(repository), true, 'a new Secret of the same name is another one');
});

test('a namespace whose Secrets may be read later is read then', async (t) => {
  const { cluster, imageOf } = await startCluster(t);
  const subject = `--serviceaccount=${NAMESPACE}:${ACCOUNT}`;
  await cluster.kubectl(['-n', 'team-b', 'create', 'role', 'late', '--verb=list,watch', '--resource=secrets']);
  await cluster.kubectl(['-n', 'team-b', 'create', 'rolebinding', 'late', '--role=late', subject]);
  await until(async () => PRIVATE.test(await imageOf(['first'], { namespace: 'team-b' })), 'the Secrets of team-b are read');
});

test('promise 18: only the API server gets the names of private images, through a path that no other client knows', async (t) => {
  const { cluster, kubeconfig, pullSecrets } = await startCluster(t);
  const manifests = await render({ values: { webhook: { pullSecrets: 'use' }, pullSecrets: { namespaces: ['team-a'] } } });
  const kinds = ['Role', 'RoleBinding', 'ClusterRole', 'ClusterRoleBinding', 'Secret', 'MutatingWebhookConfiguration'];
  for (const manifest of manifests.filter(({ kind, metadata }) => kinds.includes(kind) && metadata.name.startsWith(ACCOUNT)))
    await cluster.kubectl(['--namespace', NAMESPACE, 'create', '-f', '-'], JSON.stringify(manifest));
  const certificates = { namespace: NAMESPACE, secret: `${ACCOUNT}-tls`, service: ACCOUNT, configuration: ACCOUNT };
  await using webhook = await startWebhook({ certificates, pullSecrets: 'use' }, { KUBECONFIG: kubeconfig }, { pullSecrets });

  const clientConfig = async () => {
    const text = await cluster.kubectl(['get', 'mutatingwebhookconfiguration', ACCOUNT, '-o', 'json']);
    const { webhooks } = JSON.parse(text) as {
      webhooks: { clientConfig: { caBundle: string; service: { path?: string; port: number } } }[];
    };
    return webhooks[0]?.clientConfig;
  };
  await until(async () => (await clientConfig())?.service.path !== undefined, 'the configuration has a path');
  const { caBundle = '', service } = (await clientConfig()) ?? {};
  assert.match(service?.path ?? '', /^\/mutate\/[0-9a-f]{64}$/);
  assert.equal(service?.port, 443, 'what the chart has written stays');

  const ca = Buffer.from(caBundle, 'base64').toString();
  const dispatcher = new Agent({ connect: { ca, servername: `${ACCOUNT}.${NAMESPACE}.svc` } });
  t.after(() => dispatcher.destroy());
  const review = (more: number): string => {
    const spec = { containers: [{ name: 'a', image: IMAGE }], imagePullSecrets: [{ name: 'first' }] };
    const object = { metadata: { annotations: { padding: 'x'.repeat(more) } }, spec };
    return JSON.stringify({ request: { uid: 'u', operation: 'CREATE', namespace: 'team-a', object } });
  };
  const ask = async (path: string, more = 0): Promise<string> => {
    const headers = { 'content-type': 'application/json' };
    const { body } = await request(webhook.url + path, { method: 'POST', headers, body: review(more), dispatcher });
    const { response } = (await body.json()) as { response: { allowed: boolean; patch?: string } };
    assert.equal(response.allowed, true);
    return Buffer.from(response.patch ?? '', 'base64').toString();
  };
  assert.match(await ask(service?.path ?? ''), /by-[a-z2-7]{26}/);
  assert.match(await ask(`${service?.path}?timeout=2s`), /by-[a-z2-7]{26}/);
  for (const path of ['/mutate', '/', '/mutate/', `/mutate/${'0'.repeat(64)}`])
    for (const more of [0, 200_000]) assert.equal(await ask(path, more), '', path);
  assert.doesNotMatch(webhook.output(), new RegExp(service?.path ?? ''));
});

test('a webhook with pullSecrets: use that may read none exits with an error that says so', async () => {
  await using temporary = await temporaryDirectory();
  await using reviewer = await createReviewer(temporary.path);
  const program = await startProgram('webhook', { webhook: { tls: reviewer.tls, pullSecrets: 'use' } });
  assert.equal(await program.exited, 2);
  assert.match(program.output(), /webhook\.pullSecrets: found use; accepted: skip or rewrite, unless pullSecrets\.namespaces/);
});
