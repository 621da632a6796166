import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  IMAGE_NAMES,
  NOT_VIRTUAL_PODS,
  one,
  PLATFORM_SECRET_PODS,
  UNCHANGED_PODS,
  VIRTUAL_PODS,
  type PodCase,
} from '../../src/testing/rewriting-cases.ts';
import { until } from './until.ts';
import { isRewritten, startBothWays, type Answer, type PodRequest, type Rewriting, type Way } from './both-ways.ts';
import { startInjector } from './injector.ts';
import { generatedPods, NAMESPACES, type GeneratedPod } from './generated-pods.ts';

/** Generated pods of each set of rules. KUBE_REGISTRY_PODS: how many in all. */
const GENERATED = Number(process.env['KUBE_REGISTRY_PODS'] ?? 120);
const AT_ONCE = 8;
const ATTEMPTS = 10;

/** The chart's values: its defaults, and every rule that a user may add. */
const RULES: Record<string, Record<string, unknown>> = {
  default: {},
  'every rule': {
    registry: {
      upstreams: {
        gcr: null,
        quay: { defaultNamespace: 'acme', credentials: [{ repositories: 'acme/private/', username: 'u', password: 'p' }] },
        corp: { url: 'https://Registry.Example.com:443', credentials: [{ username: 'u', password: 'p' }] },
        other: {
          url: 'http://other.example.com:8080',
          hosts: ['registry.example.com:5000', '[2001:db8::1]:5000', 'localhost:5000', 'no-host'],
        },
      },
      hosted: { local: { hosts: ['localhost'] } },
      otherHosts: ['*', '!internal.*', '!*.{corp,lan}', '10.1.2.3:5000', 'mcr.microsoft.com'],
    },
    webhook: {
      publicRepositories: ['ghcr.io/acme/*', '**/b', 'quay.io/{a,c}/*:v?'],
      exclude: {
        extraNamespaces: ['team-[ab]-*', 'on-*'],
        images: ['docker.io/library/redis*', '**/private/**', 'registry.k8s.io/pause:3.?'],
        podSelectors: [
          { matchLabels: { app: 'x', tier: 'cache' } },
          {
            matchExpressions: [
              { key: 'app', operator: 'In', values: ['', 'y'] },
              { key: 'tier', operator: 'DoesNotExist' },
            ],
          },
          {
            matchExpressions: [
              { key: 'application', operator: 'NotIn', values: ['spilo'] },
              { key: 'application', operator: 'Exists' },
            ],
          },
        ],
      },
    },
  },
  'another host, no secrets, no upstream of its own for Docker Hub': {
    registry: { upstreams: { dockerhub: null }, otherHosts: ['*'] },
    agent: { enabled: false },
    webhook: { reach: 'external', registryHost: 'registry.example.com:5000/mirror', pullSecrets: 'rewrite' },
  },
  'every host but Docker Hub, of which a name such as my.app looks like a host': {
    registry: { upstreams: { dockerhub: null }, otherHosts: ['*', '!docker.io'] },
  },
};

interface Seen {
  status: number;
  /** The result, without the parts that differ from request to request. */
  pod: unknown;
}

function seen({ status, body }: Answer): Seen {
  if (status >= 400) return { status, pod: body['message'] };
  const { labels, annotations } = body['metadata'] as Record<string, unknown>;
  return { status, pod: { labels, annotations, spec: body['spec'] } };
}

/** The webhook ends a review that takes longer than 2 s, as on a busy machine: then the request is
 *  sent again. */
async function sendUntilReviewed(ways: Rewriting, request: PodRequest): Promise<Seen> {
  for (let attempt = 1; ; attempt++) {
    const result = seen(await ways.send(request));
    if (attempt === ATTEMPTS || result.status < 500 || !String(result.pod).includes('failed calling webhook')) return result;
  }
}

async function compare(ways: Rewriting, request: Omit<PodRequest, 'way'>): Promise<Record<'policy' | 'webhook', Seen>> {
  const [policy, webhook] = await Promise.all(
    (['policy', 'webhook'] as const).map((way: Way) => sendUntilReviewed(ways, { ...request, way })),
  );
  assert.ok(policy !== undefined && webhook !== undefined);
  return { policy, webhook };
}

function assertAlike({ policy, webhook }: Record<'policy' | 'webhook', Seen>, what: string): void {
  assert.deepEqual(policy, webhook, what);
  assert.doesNotMatch(JSON.stringify(policy), /failed expression|failed calling webhook|InternalError/, what);
}

function named(pod: GeneratedPod['pod'], name: string): GeneratedPod['pod'] {
  return { ...pod, metadata: { ...pod.metadata, name } };
}

/** Every table of cases, through the API server. */
async function compareTables(ways: Rewriting, isDefault: boolean): Promise<number> {
  const cases: (PodCase & { isRewritten?: boolean; image?: string })[] = [
    ...IMAGE_NAMES.map(([image, to]) => ({
      what: `image ${JSON.stringify(image)}`,
      pod: one(image),
      isRewritten: to !== undefined,
      image: to ?? image,
    })),
    ...UNCHANGED_PODS.map((one) => ({ ...one, isRewritten: false })),
    ...VIRTUAL_PODS.map(([what, pod]) => ({ what, pod, isRewritten: false })),
    ...[...NOT_VIRTUAL_PODS, ...PLATFORM_SECRET_PODS].map(([what, pod]) => ({ what, pod, isRewritten: true })),
  ];
  for (const { what, pod, request = {}, isRewritten, image } of cases) {
    const { namespace = 'default', userInfo } = request;
    const both = await compare(ways, { namespace, object: named(pod, 'case'), groups: userInfo?.groups ?? [] });
    assertAlike(both, what);
    if (!isDefault || both.policy.status !== 201) continue;
    assert.equal(JSON.stringify(both.policy.pod).includes('kube-registry/original-images'), isRewritten, what);
    if (image !== undefined && isRewritten) assert.ok(JSON.stringify(both.policy.pod).includes(`"127.0.0.1:25000/${image}"`), what);
  }
  return cases.length;
}

/** Most updates of pods change labels, annotations and finalizers: none of them costs the webhook a
 *  call. */
async function assertLabelsCostNothing(ways: Rewriting): Promise<void> {
  const { body } = await ways.send({ way: 'none', namespace: 'default', object: named(one(), 'labelled'), dryRun: false });
  const before = await ways.reviews();
  const object = { ...body, metadata: { ...(body['metadata'] as object), labels: { other: 'label' }, finalizers: ['example.com/x'] } };
  const request = { namespace: 'default', method: 'PUT', path: 'labelled', object } as const;
  assertAlike(await compare(ways, request), 'labels');
  assert.equal(await ways.reviews(), before, 'the webhook is not called');
}

/** Sidecars that a webhook after both adds, beside an image that is rewritten and beside one that is not: API servers ask only those
 *  again that had a say in the first round. */
async function assertSidecarsAreRewritten(ways: Rewriting): Promise<void> {
  await using injector = await startInjector('istio/proxyv2:1.27');
  const webhook = {
    name: 'injector.example.com',
    admissionReviewVersions: ['v1'],
    sideEffects: 'None',
    failurePolicy: 'Fail',
    timeoutSeconds: 30,
    clientConfig: injector.clientConfig,
    rules: [{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE'], resources: ['pods'] }],
    matchConditions: [{ name: 'test', expression: 'object.metadata.name == "injected"' }],
  };
  const kind = { apiVersion: 'admissionregistration.k8s.io/v1', kind: 'MutatingWebhookConfiguration', metadata: { name: 'z-injector' } };
  await ways.plane.kubectl(['create', '-f', '-'], JSON.stringify({ ...kind, webhooks: [webhook] }));
  for (const image of ['nginx:1.27', 'registry.internal.example/team/app:1']) {
    const request = { namespace: 'default', object: named(one(image), 'injected') };
    const isInjected = async (): Promise<boolean> =>
      JSON.stringify((await ways.send({ ...request, way: 'none' })).body).includes('sidecar');
    await until(isInjected, 'the injector is called');
    const both = await compare(ways, request);
    assertAlike(both, image);
    assert.match(JSON.stringify(both.policy.pod), /"127\.0\.0\.1:25000\/dockerhub\/istio\/proxyv2:1\.27"/, image);
  }
  await ways.plane.kubectl(['delete', 'mutatingwebhookconfiguration', 'z-injector']);
}

/** The policy reads the status of the agents' DaemonSet. */
async function assertPolicyWaitsForAgents(ways: Rewriting): Promise<void> {
  for (const [ready, rewrites] of [
    [8, false],
    [9, true],
    [0, false],
    [10, true],
  ] as const) {
    await ways.reportAgentsReady(ready);
    await until(
      async () => (await isRewritten(ways, 'policy')) === rewrites,
      `with ${ready} of 10 agents, a pod is rewritten: ${rewrites}`,
    );
  }
  await until(() => isRewritten(ways, 'webhook'), 'the webhook rewrites too');
}

let serial = 0;

/** A pod that is made, one whose images an update changes, and one that gets ephemeral containers.
 *  @returns how many were rewritten */
async function compareGenerated(ways: Rewriting, generated: GeneratedPod): Promise<number> {
  const { namespace, groups, pod, images, debuggers } = generated;
  const name = `pod-${++serial}`;
  const object = named(pod, name);
  const what = JSON.stringify(generated);
  const made = await compare(ways, { namespace, groups, object });
  assertAlike(made, what);
  const kept = await ways.send({ way: 'none', namespace, groups, object, dryRun: false });
  if (kept.status !== 201) return 0;
  const stored = kept.body as { spec: Record<'initContainers' | 'containers', { image: string }[] | undefined> };
  try {
    const changed = structuredClone(stored);
    const containers = [...(changed.spec.initContainers ?? []), ...(changed.spec.containers ?? [])];
    for (const [index, container] of containers.entries()) if (index % 2 === 0) container.image = images[index] ?? container.image;
    assertAlike(await compare(ways, { namespace, groups, method: 'PUT', path: name, object: changed }), `update of ${what}`);
    const debugged = { ...stored, spec: { ...stored.spec, ephemeralContainers: debuggers } };
    const request = { namespace, groups, method: 'PUT', path: `${name}/ephemeralcontainers`, object: debugged } as const;
    if (debuggers.length > 0) assertAlike(await compare(ways, request), `ephemeral containers of ${what}`);
  } finally {
    await ways.send({ way: 'none', namespace, method: 'DELETE', path: `${name}?gracePeriodSeconds=0`, dryRun: false });
  }
  return JSON.stringify(made.policy.pod).includes('kube-registry/original-images') ? 1 : 0;
}

/** Promise 25 on one version of Kubernetes. */
export function rewritingSuite(version: string, kubeApiServer: () => Promise<string>): void {
  void describe(`Kubernetes ${version}`, () => {
    for (const [name, values] of Object.entries(RULES)) {
      void test(`promise 25: policy and webhook rewrite alike (${name})`, async (t) => {
        await using ways = await startBothWays(await kubeApiServer(), values);
        for (const namespace of NAMESPACES) await ways.plane.kubectl(['create', 'namespace', namespace]).catch(() => undefined); // some are there
        await ways.plane.kubectl(['label', 'namespace', 'labelled-off', 'kube-registry/rewrite=false']);
        await ways.plane.kubectl(['label', 'namespace', 'on-eci', 'alibabacloud.com/eci=true']);
        const rows = await compareTables(ways, name === 'default');
        if (name === 'default') {
          await assertLabelsCostNothing(ways);
          await assertSidecarsAreRewritten(ways);
          await assertPolicyWaitsForAgents(ways);
        }
        let [pods, rewritten] = [0, 0];
        await fc.assert(
          fc.asyncProperty(fc.array(generatedPods, { minLength: AT_ONCE, maxLength: AT_ONCE }), async (batch) => {
            const outcomes = await Promise.all(batch.map((generated) => compareGenerated(ways, generated)));
            pods += batch.length;
            rewritten += outcomes.reduce((sum, one) => sum + one, 0);
          }),
          // Shrinking a pod of many containers would take longer than the file may; the message has the pod.
          { numRuns: Math.ceil(GENERATED / Object.keys(RULES).length / AT_ONCE), endOnFailure: true },
        );
        t.diagnostic(`${rows} rows, ${pods} generated pods, of which ${rewritten} were rewritten`);
        const metrics = await ways.plane.kubectl(['get', '--raw', '/metrics']);
        assert.match(
          metrics,
          /^apiserver_mutating_admission_policy_check_total\{.*error_type="no_error".*policy="test-kube-registry-policy"/m,
        );
        assert.match(metrics, /^apiserver_mutating_admission_policy_check_duration_seconds_count\{/m);
        assert.ok(rewritten > pods / 5, 'most pods say something about rewriting');
      });
    }
  });
}
