import fc from 'fast-check';
import { IMAGE_NAMES, NOT_VIRTUAL_PODS, UNCHANGED_PODS, VIRTUAL_PODS, type Pod } from '../../src/testing/rewriting-cases.ts';

/** A pod and the request that brings it. */
export interface GeneratedPod {
  namespace: string;
  groups: string[];
  pod: Pod;
  /** The pod's images after an update. */
  images: string[];
  /** Ephemeral containers that are added afterwards. */
  debuggers: { name: string; image: string }[];
}

export const NAMESPACES = ['default', 'kube-system', 'cert-manager', 'openshift-dns', 'team-a', 'team-b-1', 'labelled-off', 'on-eci'];

const component = fc.stringMatching(/^[a-z0-9]{1,6}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}$/);
const suffix = fc.oneof(
  fc.constant(''),
  fc.stringMatching(/^:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/),
  fc.stringMatching(/^@sha256:[a-f0-9]{64}$/),
  fc.stringMatching(/^:[A-Za-z0-9_]{1,5}@sha512:[a-f0-9]{128}$/),
);
const HOSTS = [
  '',
  'docker.io/',
  'index.docker.io/',
  'registry-1.docker.io/',
  'ghcr.io/',
  'quay.io/',
  'registry.k8s.io/',
  'k8s.gcr.io/',
  'gcr.io/',
  'mcr.microsoft.com/',
  'europe-docker.pkg.dev/',
  'x-docker.pkg.dev:443/',
  'registry.example.com/',
  'registry.example.com:5000/',
  'other.example.com:65535/',
  'other.example.com:65536/',
  'internal.example.com/',
  '10.1.2.3/',
  '10.1.2.3:5000/',
  '[2001:db8::1]:5000/',
  'localhost/',
  'localhost:5000/',
  'UPPER.example.com/',
  `${'a'.repeat(64)}.example.com/`,
  '127.0.0.1:25000/dockerhub/',
  '127.0.0.1:25000/',
];
/** Repositories that some of the rules name. */
const REPOSITORIES = [
  'nginx',
  'redis',
  'library/redis',
  'acme/app',
  'acme/private/app',
  'a/b',
  'distroless/static',
  'google-containers/x',
  'auto',
];
const structured = fc
  .tuple(
    fc.constantFrom(...HOSTS),
    fc.oneof(
      fc.constantFrom(...REPOSITORIES),
      fc.array(component, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/')),
    ),
    suffix,
  )
  .map((parts) => parts.join(''));
const image = fc.oneof(
  { weight: 12, arbitrary: structured },
  { weight: 4, arbitrary: fc.constantFrom(...IMAGE_NAMES.map(([name]) => name).filter((name) => name.trim() === name && name !== '')) },
  { weight: 1, arbitrary: fc.stringMatching(/^[a-z0-9.:/@_-]{1,40}$/) },
  { weight: 1, arbitrary: fc.integer({ min: 235, max: 258 }).map((length) => `${'a'.repeat(length)}/b`) },
);
const pullPolicy = fc.option(fc.constantFrom('Always', 'IfNotPresent', 'Never'), { nil: undefined });

const label = fc.constantFrom(
  ['kube-registry/rewrite', 'false'],
  ['kube-registry/rewrite', 'true'],
  ['cnpg.io/cluster', 'db'],
  ['application', 'spilo'],
  ['application', 'other'],
  ['app', 'x'],
  ['app', ''],
  ['tier', 'cache'],
  ['alibabacloud.com/eci', 'true'],
  ['alibabacloud.com/eci', 'off'],
);
const annotation = fc.oneof(
  fc.constantFrom(
    ['kubernetes.io/config.mirror', 'x'],
    ['mine', 'y'],
    ['vke.volcengine.com/burst-to-vci', 'enforce'],
    ['界', '界'.repeat(1000)],
  ),
  fc
    .oneof(
      fc.constantFrom(
        '',
        '{}',
        '[]',
        'null',
        '{"a":"b"',
        '{"a":"b"}',
        '{"c0":"old","z":"older"}',
        '{"a": "b"}',
        '{"a":1}',
        '{"a":"\\"b"}',
        '{"a":"b",}',
      ),
      fc
        .dictionary(fc.stringMatching(/^[a-z0-9]{1,4}$/), fc.stringMatching(/^[a-z0-9.:/]{1,20}$/), { maxKeys: 4 })
        .map((known) => JSON.stringify(known)),
      fc.string({ maxLength: 20 }),
    )
    .map((text) => ['kube-registry/original-images', text]),
  fc.constantFrom(240_000, 245_000, 245_600, 261_000).map((length) => ['large', 'x'.repeat(length)]),
);

/** Further fields in the spec of the cases whose images must not be rewritten. */
const placements = [...UNCHANGED_PODS.map(({ pod }) => pod), ...[...VIRTUAL_PODS, ...NOT_VIRTUAL_PODS].map(([, pod]) => pod)].map(
  ({ metadata, spec: { containers: _own, ...spec } }) => ({ metadata: metadata ?? {}, spec }),
);

const secrets: fc.Arbitrary<string[]> = fc.array(
  fc.constantFrom('default-secret', 'corp', 'default-dockercfg-abcde', 'default-dockercfg-abcdef', ''),
  { maxLength: 2 },
);

const counts = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(fc.integer({ min: 0, max: 2 }), fc.integer({ min: 1, max: 4 }), fc.integer({ min: 0, max: 2 })) },
  { weight: 1, arbitrary: fc.tuple(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 1, max: 20 }), fc.integer({ min: 0, max: 8 })) },
);

interface Part {
  image: string;
  pull: string | undefined;
}
const part: fc.Arbitrary<Part> = fc.record({ image, pull: pullPolicy });
function container(name: string, { image, pull }: Part): Record<string, unknown> {
  return { name, image, ...(pull === undefined ? {} : { imagePullPolicy: pull }) };
}

const parts = counts.chain(([init, main, volumes]) =>
  fc.record({
    init: fc.array(part, { minLength: init, maxLength: init }),
    main: fc.array(part, { minLength: main, maxLength: main }),
    volumes: fc.array(part, { minLength: volumes, maxLength: volumes }),
    images: fc.array(image, { minLength: init + main, maxLength: init + main }),
  }),
);

/** Pods of up to 40 containers and image volumes, of every kind that some rule of rewriting is
 *  about. */
export const generatedPods: fc.Arbitrary<GeneratedPod> = fc
  .record({
    namespace: fc.oneof({ weight: 4, arbitrary: fc.constant('default') }, { weight: 2, arbitrary: fc.constantFrom(...NAMESPACES) }),
    groups: fc.oneof(
      { weight: 12, arbitrary: fc.constant<string[]>([]) },
      { weight: 1, arbitrary: fc.constant<string[]>(['system:nodes']) },
    ),
    parts,
    labels: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: fc.array(label, { maxLength: 2 }) }),
    annotations: fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, { weight: 2, arbitrary: fc.array(annotation, { maxLength: 2 }) }),
    placement: fc.oneof(
      { weight: 5, arbitrary: fc.constant({ metadata: {}, spec: {} }) },
      { weight: 1, arbitrary: fc.constantFrom(...placements) },
    ),
    secrets: fc.oneof({ weight: 3, arbitrary: fc.constant<string[]>([]) }, { weight: 1, arbitrary: secrets }),
    debuggers: fc.array(image, { maxLength: 2 }),
  })
  .map(({ namespace, groups, parts, labels, annotations, placement, secrets, debuggers }) => {
    const own = placement.metadata as { labels?: Record<string, string>; annotations?: Record<string, string> };
    return {
      namespace,
      groups,
      images: parts.images,
      debuggers: debuggers.map((image, index) => ({ name: `d${index}`, image })),
      pod: {
        metadata: {
          labels: { ...own.labels, ...(Object.fromEntries(labels) as Record<string, string>) },
          ...(annotations.length === 0 && own.annotations === undefined
            ? {}
            : { annotations: { ...own.annotations, ...(Object.fromEntries(annotations) as Record<string, string>) } }),
        },
        spec: {
          ...placement.spec,
          ...(secrets.length === 0 ? {} : { imagePullSecrets: secrets.map((name) => ({ name })) }),
          // Names of only digits: JavaScript would put them first.
          initContainers: parts.init.map((one, index) => container(`${index}`, one)),
          containers: parts.main.map((one, index) => container(`c${index}`, one)),
          volumes: parts.volumes.map(({ image, pull }, index) => ({
            name: `v${index}`,
            image: { reference: image, ...(pull === undefined ? {} : { pullPolicy: pull }) },
          })),
        },
      },
    };
  });
