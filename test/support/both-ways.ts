import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { configOf, find, render, type Manifest } from '../../chart/render.ts';
import { createAuthority, issueLeaf } from '../../src/webhook/certificates.ts';
import { startControlPlane, type ControlPlane } from './control-plane.ts';
import { answersOk } from './process.ts';
import { startProgram, type Program } from './program.ts';
import { freePort, temporaryDirectory } from './temporary.ts';
import { until } from './until.ts';

/** The component that rewrites the pods of a request. */
export type Way = 'policy' | 'webhook' | 'none';

export interface Answer {
  status: number;
  /** The pod, or why it was refused. */
  body: Record<string, unknown>;
}

export interface PodRequest {
  way: Way;
  method?: 'POST' | 'PUT' | 'DELETE';
  namespace: string;
  /** The path of an existing pod: its name, and a subresource if any. */
  path?: string;
  object?: unknown;
  groups?: readonly string[];
  /** Default: true. */
  dryRun?: boolean;
}

/** A real API server, and the webhook as a process; neither webhook nor policy is registered
 *  yet. */
export interface Rewriting extends AsyncDisposable {
  plane: ControlPlane;
  /** The objects to create for each way, rendered from the same values. */
  manifests: Record<'policy' | 'webhook', Manifest[]>;
  webhook: { current(): Program; stop(): Promise<void>; start(): Promise<void> };
  /** The `clientConfig` by which an API server reaches the webhook. */
  called: ClientConfig;
  /** How many reviews it has answered. */
  reviews(): Promise<number>;
  /** Creates the DaemonSet for which both wait, unless it exists, and has all of its 10 nodes ready,
   *  or only some. */
  reportAgentsReady(ready?: number): Promise<void>;
  /** Sends a pod to the API server as an admin. */
  send(request: PodRequest): Promise<Answer>;
}

export interface ClientConfig {
  url: string;
  /** PEM in base64. */
  caBundle: string;
}

const NODES = 'system:nodes';
/** One for each way, and the same as nodes. */
const USERS = (['policy', 'webhook', 'none'] as const)
  .flatMap((way) => [`${way}-token,${way},${way},"system:masters"`, `${way}-of-nodes-token,${way},${way},"system:masters,${NODES}"`])
  .map((line) => `${line}\n`)
  .join('');

/** As the manifests are rendered. */
export const [RELEASE, NAMESPACE] = ['test', 'images'];

export async function startRewriting(kubeApiServer: string, values: Record<string, unknown>): Promise<Rewriting> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const flags = ['--disable-admission-plugins=ServiceAccount,PodSecurity,Priority', '--max-mutating-requests-inflight=1000'];
  const plane = stack.use(await startControlPlane({ kubeApiServer, apiServer: flags, users: USERS }));
  await plane.kubectl(['create', 'namespace', NAMESPACE]);
  const rendered = (mode: string): Promise<Manifest[]> => {
    const webhook = { ...(values['webhook'] as object | undefined), mode };
    return render({ release: RELEASE, namespace: NAMESPACE, kubeVersion: '1.36.0', values: { ...values, webhook } });
  };
  const [ofPolicy, ofWebhook] = await Promise.all([rendered('policy'), rendered('webhook')]);
  const [authority, port, admin] = [await createAuthority(), await freePort(), `127.0.0.1:${await freePort()}`];
  const leaf = await issueLeaf(authority, ['localhost']);
  const tls = { certFile: join(path, 'tls.crt'), keyFile: join(path, 'tls.key') };
  await Promise.all([writeFile(tls.certFile, leaf.cert), writeFile(tls.keyFile, leaf.key)]);
  const { webhook: own, ...rest } = configOf(ofWebhook, 'webhook') as { webhook: Record<string, unknown> };
  const { certificates: _own, ...kept } = own;
  const config = { ...rest, webhook: { ...kept, listen: `127.0.0.1:${port}`, admin, tls } };
  const ready = (): Promise<boolean> => answersOk(`http://${admin}/readyz`);
  const start = (): Promise<Program> => startProgram('webhook', config, { env: { KUBECONFIG: plane.kubeconfig }, ready });
  let program = await start();
  stack.defer(() => program[Symbol.asyncDispose]());
  const configuration = find(ofWebhook, 'MutatingWebhookConfiguration');
  const called = { url: `https://localhost:${port}/mutate`, caBundle: Buffer.from(authority.cert).toString('base64') };
  for (const hook of configuration['webhooks'] as { clientConfig: unknown }[]) hook.clientConfig = called;

  const client = stack.use(createClient(plane.url));
  const owned = stack.move();
  return {
    plane,
    webhook: {
      current: () => program,
      async stop() {
        await program[Symbol.asyncDispose]();
      },
      async start() {
        program = await start();
      },
    },
    called,
    manifests: {
      policy: [find(ofPolicy, 'MutatingAdmissionPolicy'), find(ofPolicy, 'MutatingAdmissionPolicyBinding')],
      webhook: [configuration],
    },
    async reviews() {
      const metrics = await (await fetch(`http://${admin}/metrics`)).text();
      return [...metrics.matchAll(/^kube_registry_reviews_total\{.*\} (\d+)$/gm)].reduce((sum, [, count]) => sum + Number(count), 0);
    },
    reportAgentsReady: (ready = 10) => reportAgentsReady(plane, { name: `${RELEASE}-kube-registry-agent`, namespace: NAMESPACE }, ready),
    send: (one) => client.send(one),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The same, with both registered: the user name decides which of them handles a request. Both
 *  report failures, so that an error is never mistaken for "not rewritten". */
export async function startBothWays(kubeApiServer: string, values: Record<string, unknown>): Promise<Rewriting> {
  await using stack = new AsyncDisposableStack();
  const ways = stack.use(await startRewriting(kubeApiServer, values));
  await ways.reportAgentsReady();
  const [policy] = ways.manifests.policy;
  const [hook] = (ways.manifests.webhook[0]?.['webhooks'] ?? []) as (Conditional & { timeoutSeconds: number })[];
  if (policy === undefined || hook === undefined) throw new Error('the chart renders no policy, or no webhook');
  hook.timeoutSeconds = 30; // on a machine that does much else
  for (const [user, part] of [
    ['webhook', hook],
    ['policy', policy['spec'] as Conditional],
  ] as const) {
    part.failurePolicy = 'Fail';
    part.matchConditions.unshift({ name: 'test-user', expression: `request.userInfo.username == "${user}"` });
  }
  for (const way of ['policy', 'webhook'] as const) await register(ways, way);
  const owned = stack.move();
  return { ...ways, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Has the API server rewrite in this way; returns when it does. */
async function register(ways: Rewriting, way: 'policy' | 'webhook'): Promise<void> {
  for (const manifest of ways.manifests[way]) await ways.plane.kubectl(['create', '-f', '-'], JSON.stringify(manifest));
  await until(() => isRewritten(ways, way), `the ${way} rewrites`);
}

/** Whether a new pod is rewritten in this way. */
export async function isRewritten(ways: Rewriting, way: Way): Promise<boolean> {
  const probe = { metadata: { name: 'probe' }, spec: { containers: [{ name: 'a', image: 'registry.k8s.io/pause' }] } };
  const { status, body } = await ways.send({ way, namespace: 'default', object: probe });
  return status === 201 && !JSON.stringify(body['spec']).includes('"registry.k8s.io/pause"');
}

interface Conditional {
  failurePolicy: string;
  matchConditions: { name: string; expression: string }[];
}

async function reportAgentsReady(
  { kubectl }: ControlPlane,
  metadata: { name: string; namespace: string },
  numberReady: number,
): Promise<void> {
  const labels = { app: 'agent' };
  const template = { metadata: { labels }, spec: { containers: [{ name: 'agent', image: 'agent' }] } };
  const daemonSet = { apiVersion: 'apps/v1', kind: 'DaemonSet', metadata, spec: { selector: { matchLabels: labels }, template } };
  await kubectl(['create', '-f', '-'], JSON.stringify(daemonSet)).catch(() => undefined); // it exists
  const status = { desiredNumberScheduled: 10, currentNumberScheduled: 10, numberReady, numberMisscheduled: 0 };
  const patch = ['patch', 'daemonset', metadata.name, '--subresource=status', '--type=merge', '-p', JSON.stringify({ status })];
  await kubectl(['--namespace', metadata.namespace, ...patch]);
}

function createClient(url: string): Pick<Rewriting, 'send'> & AsyncDisposable {
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, connections: 64 });
  return {
    async send({ way, method = 'POST', namespace, path = '', object, groups = [], dryRun = true }) {
      const token = `${way}${groups.includes(NODES) ? '-of-nodes' : ''}-token`;
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
      const answer = await request(
        `${url}/api/v1/namespaces/${namespace}/pods${path === '' ? '' : `/${path}`}${dryRun ? '?dryRun=All' : ''}`,
        {
          method,
          headers,
          dispatcher,
          ...(object === undefined ? {} : { body: JSON.stringify({ apiVersion: 'v1', kind: 'Pod', ...(object as object) }) }),
        },
      );
      return { status: answer.statusCode, body: (await answer.body.json()) as Record<string, unknown> };
    },
    [Symbol.asyncDispose]: () => dispatcher.destroy(),
  };
}
