import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configSchema } from '../config/schema.ts';
import { reviewPod } from './admission-review.ts';
import { createPolicy } from './policy.ts';
import { reportPods } from './report.ts';

type Pod = Record<string, unknown> & { metadata?: Record<string, unknown>; spec: Record<string, unknown> };

interface Options {
  webhook?: Record<string, unknown>;
  upstreams?: Record<string, unknown>;
  request?: Record<string, unknown>;
  gate?: boolean;
}

function policyOf({ webhook = {}, upstreams = {} }: Options) {
  const config = configSchema.parse({ webhook, registry: { upstreams } });
  return createPolicy(config.webhook, config.registry.upstreams, config.registry);
}

function review(pod: Pod, options: Options = {}) {
  const request = { uid: 'u1', operation: 'CREATE', namespace: 'default', userInfo: { groups: [] }, object: pod, ...options.request };
  const { json, outcome } = reviewPod(JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request }), {
    policy: policyOf(options),
    gateOpen: () => options.gate ?? true,
  });
  const { response } = JSON.parse(json) as { response: { uid: string; allowed: boolean; patchType?: string; patch?: string } };
  assert.equal(response.uid, 'u1');
  assert.equal(response.allowed, true);
  assert.equal(response.patchType, response.patch === undefined ? undefined : 'JSONPatch');
  const patch = JSON.parse(Buffer.from(response.patch ?? 'W10=', 'base64').toString()) as { op: string; path: string; value: unknown }[];
  return { outcome, patch, paths: patch.map(({ path }) => path) };
}

const ANNOTATION = '/metadata/annotations/kube-registry~1original-images';
const one = (image = 'nginx', more: Record<string, unknown> = {}): Pod => ({ spec: { containers: [{ name: 'a', image }], ...more } });
const labelled = (label: string, value: string): Pod => ({ metadata: { labels: { [label]: value } }, ...one() });
const annotated = (annotation: string, value: string): Pod => ({ metadata: { annotations: { [annotation]: value } }, ...one() });
/** A pod with a node affinity, required or preferred. */
function near(key: string, operator: string, values: string[], preferred = false): Pod {
  const matchExpressions = [{ key, operator, values }];
  const nodeAffinity = preferred
    ? { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 1, preference: { matchExpressions } }] }
    : { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions }] } };
  return one('nginx', { affinity: { nodeAffinity } });
}

test('promise W3: one operation for each image, of every kind of container and of image volumes, and the annotation', () => {
  const { patch, outcome } = review({
    metadata: { annotations: { mine: 'x', 'kube-registry/original-images': '{"z":"old","a":"older"}' } },
    spec: {
      initContainers: [{ name: 'i', image: 'busybox:1' }],
      containers: [
        { name: 'a', image: 'nginx' },
        { name: 'b', image: 'example.com/x' },
        { name: 'c', image: 'quay.io/a/b', imagePullPolicy: 'Never' },
      ],
      ephemeralContainers: [{ name: 'e', image: 'ghcr.io/a/b' }],
      volumes: [
        { name: 'v', image: { reference: 'registry.k8s.io/pause:3' } },
        { name: 'w', emptyDir: {} },
      ],
    },
  });
  assert.equal(outcome, 'rewritten');
  assert.deepEqual(patch, [
    { op: 'replace', path: '/spec/initContainers/0/image', value: '127.0.0.1:25000/dockerhub/library/busybox:1' },
    { op: 'replace', path: '/spec/containers/0/image', value: '127.0.0.1:25000/dockerhub/library/nginx' },
    { op: 'replace', path: '/spec/ephemeralContainers/0/image', value: '127.0.0.1:25000/ghcr/a/b' },
    { op: 'replace', path: '/spec/volumes/0/image/reference', value: '127.0.0.1:25000/k8s/pause:3' },
    {
      op: 'add',
      path: ANNOTATION,
      value: JSON.stringify({ z: 'old', a: 'nginx', i: 'busybox:1', e: 'ghcr.io/a/b', 'volume/v': 'registry.k8s.io/pause:3' }),
    },
  ]);
});

test('promise W7: a pod without annotations gets them, and an already rewritten pod stays unchanged', () => {
  assert.deepEqual(review(one()).patch.at(-1), {
    op: 'add',
    path: '/metadata/annotations',
    value: { 'kube-registry/original-images': '{"a":"nginx"}' },
  });
  assert.deepEqual(review(one('127.0.0.1:25000/dockerhub/library/nginx')), { outcome: 'unchanged', patch: [], paths: [] });
});

test('promise W3: of an update only the changed images are rewritten', () => {
  const object: Pod = {
    spec: {
      containers: [
        { name: 'a', image: 'nginx:2' },
        { name: 'b', image: 'redis' },
      ],
    },
  };
  const oldObject = {
    spec: {
      containers: [
        { name: 'a', image: 'nginx:1' },
        { name: 'b', image: 'redis' },
      ],
    },
  };
  assert.deepEqual(review(object, { request: { operation: 'UPDATE', oldObject } }).paths, [
    '/spec/containers/0/image',
    '/metadata/annotations',
  ]);
  assert.deepEqual(review(object, { request: { operation: 'UPDATE', oldObject: object } }).patch, []);
});

test('promise W3: of ephemeral containers only new ones are rewritten, without an annotation', () => {
  const old = { containers: [{ name: 'a', image: 'nginx' }], ephemeralContainers: [{ name: 'e', image: 'busybox' }] };
  const object: Pod = { spec: { ...old, ephemeralContainers: [...old.ephemeralContainers, { name: 'f', image: 'busybox' }] } };
  const request = { operation: 'UPDATE', subResource: 'ephemeralcontainers', oldObject: { spec: old } };
  assert.deepEqual(review(object, { request }).paths, ['/spec/ephemeralContainers/1/image']);
});

test('promise W4: pods that must keep their images keep them', () => {
  const rows: [string, Pod, Options][] = [
    ['kube-system', one(), { request: { namespace: 'kube-system' } }],
    ['a glob of namespaces', one(), { request: { namespace: 'openshift-dns' } }],
    ['a label', { metadata: { labels: { 'kube-registry/rewrite': 'false' } }, ...one() }, {}],
    ['cnpg', { metadata: { labels: { 'cnpg.io/cluster': 'db' } }, ...one() }, {}],
    ['spilo', { metadata: { labels: { application: 'spilo' } }, ...one() }, {}],
    ['a critical priority', one('nginx', { priorityClassName: 'system-node-critical' }), {}],
    ['another one', one('nginx', { priorityClassName: 'system-cluster-critical' }), {}],
    ['a node that asks', one(), { request: { userInfo: { groups: ['system:nodes'] } } }],
    ['a mirror pod', { metadata: { annotations: { 'kubernetes.io/config.mirror': 'x' } }, ...one() }, {}],
    ['windows', one('nginx', { os: { name: 'windows' } }), {}],
    ['windows by its node', one('nginx', { nodeSelector: { 'kubernetes.io/os': 'windows' } }), {}],
    ['fargate', { metadata: { labels: { 'eks.amazonaws.com/fargate-profile': 'p' } }, ...one() }, {}],
    ['a virtual kubelet', one('nginx', { nodeSelector: { type: 'virtual-kubelet' } }), {}],
    ['a virtual kubelet by toleration', one('nginx', { tolerations: [{ key: 'virtual-kubelet.io/provider' }] }), {}],
    ['pull secrets', one('user/app', { imagePullSecrets: [{ name: 's' }] }), {}],
    ['a pull secret beside that of the platform', one('user/app', { imagePullSecrets: [{ name: 'default-secret' }, { name: 's' }] }), {}],
    ["a catalog pod of OLM, whose operator replaces it while the image is not the source's", labelled('olm.catalogSource', 'x'), {}],
    ['a virtual machine of KubeVirt, which counts as outdated otherwise', labelled('kubevirt.io', 'virt-launcher'), {}],
    ["the placeholder of Istio's gateways", one('auto'), {}],
    ['an image', one('redis:7'), { webhook: { exclude: { images: ['docker.io/library/redis*'] } } }],
    ['an image by its other name', one('index.docker.io/redis:7'), { webhook: { exclude: { images: ['docker.io/library/redis*'] } } }],
    [
      'a selector',
      { metadata: { labels: { app: 'x' } }, ...one() },
      { webhook: { exclude: { podSelectors: [{ matchLabels: { app: 'x' } }] } } },
    ],
    [
      'an expression',
      one(),
      { webhook: { exclude: { podSelectors: [{ matchExpressions: [{ key: 'app', operator: 'DoesNotExist' }] }] } } },
    ],
    ['agents that are missing', one(), { gate: false }],
  ];
  for (const [what, pod, options] of rows) assert.deepEqual(review(pod, options).patch, [], what);
  assert.equal(review(one()).patch.length, 2);
});

test('promise W5: pods with pull secrets are rewritten when configured, and for images that are public or have credentials', () => {
  const pod = one('ghcr.io/acme/app:1', { imagePullSecrets: [{ name: 's' }] });
  const rows: Options[] = [
    { webhook: { pullSecrets: 'rewrite' } },
    { webhook: { publicRepositories: ['ghcr.io/acme/*'] } },
    { upstreams: { ghcr: { credentials: [{ repositories: 'acme/', username: 'u', password: 'p' }] } } },
  ];
  for (const options of rows) assert.equal(review(pod, options).outcome, 'rewritten', JSON.stringify(options));
  assert.equal(
    review(pod, { upstreams: { ghcr: { credentials: [{ repositories: 'other/', username: 'u', password: 'p' }] } } }).outcome,
    'unchanged',
  );
});

test('promise W1: a body that is no AdmissionReview is allowed, counted as an error, and harms nothing', () => {
  const bodies = [
    '',
    'no json',
    'null',
    '[]',
    '1',
    '{}',
    '{"request":null}',
    '{"request":{}}',
    '{"request":{"uid":"u","object":null}}',
    '{"request":{"uid":"u","object":[]}}',
    '{"request":{"uid":"u","object":{}}}',
    '{"request":{"uid":"u","object":{"spec":null}}}',
    '{"request":{"uid":"u","object":{"spec":{"containers":"x"}}}}',
    '{"request":{"uid":5,"object":{"spec":{}}}}',
  ];
  for (const body of bodies) {
    const { json, outcome } = reviewPod(body, { policy: policyOf({}), gateOpen: () => true });
    assert.equal(outcome, 'error', body);
    assert.equal((JSON.parse(json) as { response: { allowed: boolean } }).response.allowed, true, body);
  }
});

test('fields of wrong types are left alone, and what is right beside them is rewritten', () => {
  const odd = JSON.parse(
    '{"metadata":{"labels":[],"annotations":"x","__proto__":{"polluted":true}},"spec":{"__proto__":{"polluted":true},"initContainers":5,' +
      '"containers":[null,5,{"image":7},{"name":"__proto__","image":"nginx"},{"name":"a","image":"nginx"}],"volumes":[{"image":"x"}],' +
      '"tolerations":{},"imagePullSecrets":{}}}',
  ) as Pod;
  const { paths, outcome } = review(odd);
  assert.equal(outcome, 'rewritten');
  assert.deepEqual(paths, ['/spec/containers/3/image', '/spec/containers/4/image', '/metadata/annotations']);
  assert.equal(({} as { polluted?: boolean }).polluted, undefined);
});

test('a pod of 2 MB is rewritten too', () => {
  const containers = Array.from({ length: 2000 }, (_, index) => ({
    name: `c${index}`,
    image: `user/app${index}`,
    args: ['x'.repeat(1000)],
  }));
  assert.equal(review({ spec: { containers } }).patch.length, 2001);
});

test('the report says of every image why it is as it is', () => {
  const pods = [
    { metadata: { name: 'old', namespace: 'default' }, spec: { containers: [{ name: 'a', image: 'nginx' }] } },
    {
      metadata: { name: 'new', namespace: 'default', annotations: { 'kube-registry/original-images': '{"a":"nginx"}' } },
      spec: { containers: [{ name: 'a', image: '127.0.0.1:25000/dockerhub/library/nginx' }] },
    },
    { metadata: { name: 'dns', namespace: 'kube-system' }, spec: { containers: [{ name: 'a', image: 'registry.k8s.io/dns' }] } },
    {
      metadata: { name: 'over', namespace: 'default' },
      status: { phase: 'Succeeded' },
      spec: { containers: [{ name: 'a', image: 'nginx' }] },
    },
  ];
  const lines = reportPods(pods, policyOf({})).map(({ pod, reason, original }) => [pod, reason, original]);
  assert.deepEqual(lines, [
    ['old', 'before', undefined],
    ['new', 'rewritten', 'nginx'],
    ['dns', 'namespace', undefined],
  ]);
});

test('promise W4: pods that may run on virtual nodes keep their images, as the makers of those nodes document how to ask for them', () => {
  const tolerating = (key: string): Pod => one('nginx', { tolerations: [{ key, operator: 'Exists', effect: 'NoSchedule' }] });
  const rows: [string, Pod][] = [
    ['TKE super node, nodeSelector', one('nginx', { nodeSelector: { 'node.kubernetes.io/instance-type': 'eklet' } })],
    ['TKE super node, toleration', tolerating('eks.tke.cloud.tencent.com/eklet')],
    ['TKE super node, nodeName', one('nginx', { nodeName: 'eklet-subnet-a1b2c3-x' })],
    ['Huawei CCE to CCI 2.0', labelled('bursting.cci.io/burst-to-cci', 'enforce')],
    ['Huawei CCE to CCI 2.0 when the nodes are full', labelled('bursting.cci.io/burst-to-cci', 'localPrefer')],
    ['Huawei CCE to CCI 1.0', labelled('virtual-kubelet.io/burst-to-cci', 'auto')],
    ['Huawei CCE, nodeName', one('nginx', { nodeName: 'bursting-node' })],
    ['VKE to VCI', annotated('vke.volcengine.com/burst-to-vci', 'enforce')],
    ['VKE to VCI, toleration', tolerating('vci.vke.volcengine.com/node-type')],
    ['ACK to ECI', labelled('alibabacloud.com/eci', 'true')],
    ['ACK to ECI when the nodes are full', annotated('alibabacloud.com/burst-resource', 'eci')],
    ['ACK to ACS', labelled('alibabacloud.com/acs', 'true')],
    ['ACS itself', labelled('alibabacloud.com/compute-class', 'general-purpose')],
    ['Fargate', one('nginx', { nodeSelector: { 'eks.amazonaws.com/compute-type': 'fargate' } })],
    ['Liqo', tolerating('virtual-node.liqo.io/not-allowed')],
    ['a virtual kubelet, affinity', near('type', 'In', ['virtual-kubelet'])],
    ['a virtual kubelet, preferred', near('type', 'In', ['virtual-kubelet'], true)],
    ['a virtual node, by its key', near('alibabacloud.com/virtual-node', 'In', ['true'])],
    ['a virtual node, by its key alone', near('virtual-kubelet.io/provider', 'Exists', [])],
    ['Windows, affinity', near('kubernetes.io/os', 'In', ['windows'])],
    ['Windows, not Linux', near('kubernetes.io/os', 'NotIn', ['linux'])],
    [
      'a DaemonSet, on a virtual node',
      one('nginx', {
        affinity: {
          nodeAffinity: {
            requiredDuringSchedulingIgnoredDuringExecution: {
              nodeSelectorTerms: [{ matchFields: [{ key: 'metadata.name', operator: 'In', values: ['virtual-kubelet-cn-beijing-a'] }] }],
            },
          },
        },
      }),
    ],
  ];
  for (const [what, pod] of rows) assert.equal(review(pod).outcome, 'excluded', what);
});

test('pods that keep off virtual nodes, or tolerate any taint, are rewritten', () => {
  const rows: [string, Pod][] = [
    ['a refusal', labelled('bursting.cci.io/burst-to-cci', 'off')],
    ['another one', labelled('alibabacloud.com/eci', 'false')],
    ['not on virtual nodes', near('type', 'NotIn', ['virtual-kubelet'])],
    ['not by a key', near('virtual-kubelet.io/provider', 'DoesNotExist', [])],
    ['not on Windows', near('kubernetes.io/os', 'NotIn', ['windows'])],
    ['on Linux', near('kubernetes.io/os', 'In', ['linux'])],
    ['EKS Auto Mode, whose nodes are machines', one('nginx', { nodeSelector: { 'eks.amazonaws.com/compute-type': 'auto' } })],
    ['a logging agent that runs everywhere', one('nginx', { tolerations: [{ operator: 'Exists' }] })],
    ['an instance type', one('nginx', { nodeSelector: { 'node.kubernetes.io/instance-type': 'm5.large' } })],
  ];
  for (const [what, pod] of rows) assert.equal(review(pod).outcome, 'rewritten', what);
});

test('pull secrets that every pod of a platform has, and public images, keep nothing from being rewritten', () => {
  const secrets = (...names: string[]) => ({ imagePullSecrets: names.map((name) => ({ name })) });
  const rows: [string, Pod][] = [
    ['OpenShift', one('user/app', secrets('default-dockercfg-7k2xq'))],
    ['OpenShift, another account', one('ghcr.io/a/b', secrets('deployer-dockercfg-x9v4z'))],
    ['Huawei CCE', one('quay.io/a/b', secrets('default-secret'))],
    ['Tencent TKE', one('user/app', secrets('qcloudregistrykey', 'tencenthubkey'))],
    ['an official image of Docker Hub', one('nginx:1.27', secrets('corp-registry'))],
    ["an image of Kubernetes' own", one('registry.k8s.io/ingress-nginx/controller:v1', secrets('corp-registry'))],
  ];
  for (const [what, pod] of rows) assert.equal(review(pod).outcome, 'rewritten', what);
  const chosen = { webhook: { ignorePullSecrets: ['corp-*'] } };
  assert.equal(review(one('user/app', secrets('corp-registry')), chosen).outcome, 'rewritten');
  assert.equal(review(one('user/app', secrets('default-secret')), chosen).patch.length, 0, "the list is the configuration's");
});

test('whichever webhook is first, the image that Istio puts for its placeholder is rewritten', () => {
  assert.equal(review(one('auto')).outcome, 'unchanged');
  assert.equal(review(one('docker.io/istio/proxyv2:1.27.0')).outcome, 'rewritten');
  assert.equal(review(one('user/auto')).outcome, 'rewritten', 'only the bare word is a placeholder');
});

test('promise W1: the annotation is left out where the API server would refuse the pod for it', () => {
  const LIMIT = 256 * 1024;
  const crowded = review({ metadata: { annotations: { config: 'x'.repeat(LIMIT - 1000) } }, ...one() });
  assert.deepEqual(crowded.paths, ['/spec/containers/0/image']);
  const containers = Array.from({ length: 3000 }, (_, n) => ({
    name: `c${n}`,
    image: `registry.k8s.io/some/component-${n}:v1@sha256:${'a'.repeat(64)}`,
  }));
  const many = review({ spec: { containers } });
  assert.equal(many.patch.length, 3000);
  assert.ok(many.paths.every((path) => path.endsWith('/image')));
  const characters = review({ metadata: { annotations: { config: '界'.repeat(80_000) } }, ...one() });
  assert.equal(characters.patch.length, 2, 'three bytes a character: 240,000 leave room');
  assert.equal(review({ metadata: { annotations: { config: '界'.repeat(85_000) } }, ...one() }).patch.length, 1, 'and 255,000 do not');
});
