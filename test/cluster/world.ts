import { cp, mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { temporaryDirectory, type TemporaryDirectory } from '../support/temporary.ts';
import { NODE, startCluster, type Cluster, type ClusterOptions } from './cluster.ts';
import { createImageBuilder, KUBE_REGISTRY } from './images.ts';
import { startOutside, type Outside } from './outside.ts';

const run = promisify(execFile);

export const NAMESPACE = 'images';
export const RELEASE = 'kube-registry';
export const CHART = join(import.meta.dirname, '../../chart');

/** A cluster with DNS, volumes and the chart's images on its node, and the network outside. */
export interface World extends Cluster {
  outside: Outside;
  /** The uncompressed size of the chart's image, in bytes. */
  imageSize: number;
  /** The program that images of the tests start. */
  program: Buffer;
}

/** Ready for `helm install`. */
export async function startWorld(options: ClusterOptions = {}): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const cluster = stack.use(await startCluster(options));
  const outside = stack.use(await startOutside(cluster));
  const builder = await createImageBuilder(path);
  const coredns = await builder.coredns();
  const own = await builder.kubeRegistry(cluster.authority.pem);
  for (const archive of [await builder.pause(), coredns, await builder.versitygw(), own]) await cluster.importImage(archive);
  await cluster.kubectl(['apply', '-f', '-'], list(...nameService(coredns.reference, cluster.network.address)));
  await createVolumes(cluster, join(path, 'volumes'));
  await cluster.kubectl(['create', 'namespace', NAMESPACE]);
  await cluster.kubectl(['label', 'namespace', NAMESPACE, 'pod-security.kubernetes.io/enforce=privileged']);
  await cluster.kubectl(['-n', 'kube-system', 'rollout', 'status', 'deployment/coredns', '--timeout=15m']);
  const program = await buildProgram(path);
  const { size: imageSize } = await stat(own.path);
  const owned = stack.move();
  return { ...cluster, outside, imageSize, program, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Agents share blobs in all tests: `CLUSTER_SHARE=1 npm run test:cluster`. By default, one step
 *  turns sharing on. */
const SHARE = process.env['CLUSTER_SHARE'] === '1';

/** The chart's values in all of these tests: the image that was built here, and the chart's S3
 *  server. */
export function values({ agent = {}, ...more }: Record<string, unknown> & { agent?: Record<string, unknown> } = {}): Record<
  string,
  unknown
> {
  return {
    image: { ...KUBE_REGISTRY, pullPolicy: 'Never' },
    objectStorage: { enabled: true, image: { pullPolicy: 'Never' }, persistence: { size: '1Gi' } },
    agent: SHARE ? { share: { enabled: true }, ...agent } : agent,
    ...more,
  };
}

/** `helm upgrade --install`; returns when everything is ready. */
export async function install(
  world: World,
  settings: Record<string, unknown>,
  { chart = CHART, namespace = NAMESPACE }: { chart?: string; namespace?: string } = {},
): Promise<void> {
  const flags = ['--namespace', namespace, '--reset-values', '--wait', '--timeout', '15m', '--values', '-'];
  await world.helm(['upgrade', '--install', RELEASE, chart, ...flags], settings);
}

/** A copy of this chart with another version. */
export async function renamedChart(version: string): Promise<TemporaryDirectory> {
  const directory = await temporaryDirectory();
  await cp(CHART, directory.path, { recursive: true });
  const file = join(directory.path, 'Chart.yaml');
  await writeFile(file, (await readFile(file, 'utf8')).replaceAll(/^(version|appVersion): .*$/gm, `$1: ${version}`));
  return directory;
}

async function buildProgram(directory: string): Promise<Buffer> {
  const file = join(directory, 'program');
  await run('go', ['build', '-ldflags', '-s -w', '-o', file, '.'], {
    cwd: join(import.meta.dirname, 'program'),
    env: { ...process.env, CGO_ENABLED: '0', GO111MODULE: 'off' },
  });
  return readFile(file);
}

/** Creates volumes for claims without a StorageClass. */
async function createVolumes(cluster: Cluster, directory: string): Promise<void> {
  const volumes = ['one', 'two'].map((name) => ({
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name },
    spec: {
      capacity: { storage: '100Gi' },
      accessModes: ['ReadWriteOnce'],
      local: { path: join(directory, name) },
      nodeAffinity: {
        required: { nodeSelectorTerms: [{ matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: [NODE] }] }] },
      },
    },
  }));
  for (const { spec } of volumes) await mkdir(spec.local.path, { recursive: true });
  await cluster.kubectl(['apply', '-f', '-'], list(...volumes));
}

/** CoreDNS, as clusters have it. */
function nameService(image: string, resolver: string): object[] {
  const [name, namespace] = ['coredns', 'kube-system'];
  const metadata = { name, namespace };
  const labels = { 'k8s-app': 'kube-dns' };
  const corefile = `. {
  ready
  kubernetes cluster.local in-addr.arpa ip6.arpa
  forward . ${resolver}
}
`;
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name },
      rules: [
        { apiGroups: [''], resources: ['endpoints', 'services', 'pods', 'namespaces'], verbs: ['list', 'watch'] },
        { apiGroups: ['discovery.k8s.io'], resources: ['endpointslices'], verbs: ['list', 'watch'] },
      ],
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name },
      subjects: [{ kind: 'ServiceAccount', name, namespace }],
    },
    { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { Corefile: corefile } },
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata,
      spec: {
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            serviceAccountName: name,
            priorityClassName: 'system-cluster-critical',
            dnsPolicy: 'Default',
            containers: [
              {
                name,
                image,
                imagePullPolicy: 'Never',
                args: ['-conf', '/etc/coredns/Corefile'],
                volumeMounts: [{ name: 'config', mountPath: '/etc/coredns' }],
                readinessProbe: { httpGet: { path: '/ready', port: 8181 }, periodSeconds: 1 },
              },
            ],
            volumes: [{ name: 'config', configMap: { name } }],
          },
        },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'kube-dns', namespace },
      spec: {
        selector: labels,
        clusterIP: '10.96.0.10',
        ports: [
          { name: 'udp', port: 53, protocol: 'UDP' },
          { name: 'tcp', port: 53, protocol: 'TCP' },
        ],
      },
    },
  ];
}

function list(...items: object[]): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}
