import assert from 'node:assert/strict';
import { test } from 'node:test';
import { configSchema } from '../config/schema.ts';
import {
  NOT_VIRTUAL_PODS,
  one,
  PLATFORM_SECRET_PODS,
  UNCHANGED_PODS,
  VIRTUAL_PODS,
  withSecrets,
  type Pod,
} from '../testing/rewriting-cases.ts';
import { reviewPod } from './admission-review.ts';
import { createPolicy } from './policy.ts';
import { reportPods } from './report.ts';

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
      value: JSON.stringify({ z: 'old', i: 'busybox:1', a: 'nginx', e: 'ghcr.io/a/b', 'volume/v': 'registry.k8s.io/pause:3' }),
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
    ...UNCHANGED_PODS.map(({ what, pod, request = {} }): [string, Pod, Options] => [what, pod, { request }]),
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

test('promise W1: a body that is not an AdmissionReview is allowed, counted as an error, and has no other effect', () => {
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

test('fields with wrong types are not changed, and valid images next to them are rewritten', () => {
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

test('the report shows for every image why it was or was not rewritten', () => {
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
  for (const [what, pod] of VIRTUAL_PODS) assert.equal(review(pod).outcome, 'excluded', what);
});

test('pods that keep off virtual nodes, or tolerate any taint, are rewritten', () => {
  for (const [what, pod] of NOT_VIRTUAL_PODS) assert.equal(review(pod).outcome, 'rewritten', what);
});

test('pull secrets that every pod of a platform has, and public images, keep nothing from being rewritten', () => {
  for (const [what, pod] of PLATFORM_SECRET_PODS) assert.equal(review(pod).outcome, 'rewritten', what);
  const chosen = { webhook: { ignorePullSecrets: ['corp-*'] } };
  assert.equal(review(one('user/app', withSecrets('corp-registry')), chosen).outcome, 'rewritten');
  assert.equal(review(one('user/app', withSecrets('default-secret')), chosen).patch.length, 0, "the list is the configuration's");
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
