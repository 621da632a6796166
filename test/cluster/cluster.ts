import { execFile } from 'node:child_process';
import { globSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { stringify } from 'yaml';
import { startControlPlane, type ControlPlane } from '../support/control-plane.ts';
import { accepts, startService, type Service } from '../support/process.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { debianTool, toolPath } from '../tools/tools.ts';
import { createApi, type Api } from './api.ts';
import { createAuthority, type Authority } from './authority.ts';
import { PAUSE, type ImageArchive } from './images.ts';
import { runningProcesses } from './isolation.ts';
import { startNetwork, type Network } from './network.ts';

const run = promisify(execFile);

export const NODE = 'node0';
const CLUSTER_DNS = '10.96.0.10';
/** How often containers are looked for that end late. */
const SHIM_ROUNDS = 50;

export interface Cluster extends AsyncDisposable {
  network: Network;
  /** The authority that issued the API server's certificate; containerd trusts it too. */
  authority: Authority;
  plane: ControlPlane;
  kubectl: ControlPlane['kubectl'];
  /** The same without starting a process. */
  api: Api;
  helm: (args: readonly string[], values?: unknown) => Promise<string>;
  /** `ctr ARGS` in the kubelet's image namespace. */
  ctr: (...args: string[]) => Promise<string>;
  importImage: (archive: ImageArchive) => Promise<void>;
  /** Uses the CRI, as the kubelet does: `pull IMAGE`, `list`. */
  cri: (...args: string[]) => Promise<string>;
  /** Removes an image from the node, by the digest of its tag, with all content that no other image
   *  needs. */
  forget: (...digests: string[]) => Promise<void>;
  /** Sends SIGKILL to all containers of this name in the cluster. */
  killContainers: (name: string) => Promise<void>;
  /** Sends SIGKILL to the processes of this name in them. */
  killProcesses: (container: string, name: string) => Promise<void>;
  /** Where containerd looks for hosts.toml files. */
  certificatesDirectory: string;
  containerd: Service;
  kubelet: Service;
  /** Stops everything at once, including containers, as in a power failure; disks keep their
   *  content. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

export interface ClusterOptions {
  /** The release of Debian (1.6), or the current one (2.4). */
  containerd?: 'debian' | '2.4';
  /** The path of a kube-apiserver of a later version than everything else. */
  kubeApiServer?: string;
}

/** A real Kubernetes cluster of one node in a network of its own: kubelet, containerd, kube-proxy
 *  and every controller. The kubelet is `system:node:node0`. Needs root. @throws Error: names the
 *  missing programs in one line */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  if (process.getuid?.() !== 0) throw new Error('the cluster needs root: run this test as root');
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const network = stack.use(await startNetwork());
  stack.use(await ownCgroups());
  const authority = await createAuthority(join(path, 'pki'));
  const names = [
    'DNS:localhost',
    'DNS:kubernetes.default.svc',
    'IP:127.0.0.1',
    'IP:10.96.0.1',
    `IP:${network.address}`,
    `IP:${network.inside}`,
  ];
  const certificate = await authority.issue('kube-apiserver', names);
  const plane = stack.use(
    await startControlPlane({
      enter: network.enter,
      ...(options.kubeApiServer === undefined ? {} : { kubeApiServer: options.kubeApiServer }),
      controllers: ['*'],
      users: `node-token,system:node:${NODE},${NODE},"system:nodes"\n`,
      apiServer: [
        '--bind-address=0.0.0.0',
        `--advertise-address=${network.address}`,
        '--endpoint-reconciler-type=lease',
        `--tls-cert-file=${certificate.certificate}`,
        `--tls-private-key-file=${certificate.key}`,
        `--client-ca-file=${authority.file}`,
        '--kubelet-preferred-address-types=InternalIP',
        '--feature-gates=ImageVolume=true',
      ],
      controllerManager: [`--root-ca-file=${authority.file}`],
      scheduler: true,
    }),
  );
  const containerd = await startNodeContainerd(stack, { path, network, authority, release: options.containerd ?? 'debian' });
  const kubelet = await startKubelet(stack, { path, network, plane, socket: containerd.socket });
  const proxy = await startProxy(stack, { path, network, plane });
  const { kubectl } = plane;
  const url = `https://${network.inside}:${new URL(plane.url).port}`;
  const api = createApi({ url, ca: authority.pem, token: 'admin-token' });
  await until(
    async () => (await kubectl(['get', 'node', NODE, '-o', 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'])) === 'True',
  );
  const [helm, cri] = [await toolPath('helm'), await toolPath('cri')];
  const owned = stack.move();
  return {
    network,
    authority,
    plane,
    kubectl,
    api,
    ctr: containerd.ctr,
    containerd: containerd.service,
    kubelet,
    certificatesDirectory: containerd.certificatesDirectory,
    async helm(args, values) {
      const child = run(
        ...network.wrap(helm, [...args, '--kubeconfig', plane.kubeconfig, ...(values === undefined ? [] : ['--values', '-'])]),
      );
      child.child.stdin?.end(values === undefined ? '' : JSON.stringify(values));
      return (await child).stdout;
    },
    async importImage({ path: archive }) {
      await containerd.ctr('images', 'import', archive);
    },
    async stop() {
      for (const service of [kubelet, proxy]) await service.stop('SIGKILL');
      await plane.stop();
      await endContainers(containerd.ctr, containerd.socket);
      await containerd.service.stop('SIGKILL');
    },
    async start() {
      await Promise.all([plane.start(), containerd.service.start()]);
      for (const service of [kubelet, proxy]) await service.start();
    },
    cri: async (...args) => (await run(cri, ['--endpoint', `unix://${containerd.socket}`, ...args])).stdout,
    async forget(...digests) {
      const lines = (await containerd.ctr('images', 'list')).split('\n').map((line) => line.split(/\s+/));
      const references = lines.flatMap(([reference, , digest]) => (digests.includes(digest ?? '') ? [reference ?? ''] : []));
      if (references.length > 0) await containerd.ctr('images', 'remove', '--sync', ...references);
    },
    async killContainers(name) {
      for (const id of await containersOf(containerd.ctr, name)) {
        await containerd.ctr('tasks', 'kill', '--signal', 'SIGKILL', id).catch(ignoreEnded);
      }
    },
    async killProcesses(container, name) {
      for (const id of await containersOf(containerd.ctr, container)) {
        for (const pid of (await containerd.ctr('tasks', 'ps', id).catch(() => '')).match(/^\d+/gm) ?? []) {
          if ((await readFile(`/proc/${pid}/comm`, 'utf8')).trim() === name) process.kill(Number(pid), 'SIGKILL');
        }
      }
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Control groups that the kubelet creates are removed at the end if there were none before. */
async function ownCgroups(): Promise<AsyncDisposable> {
  const groups = (): string[] => globSync('/sys/fs/cgroup/{,*/}kubepods');
  const mine = groups().length === 0;
  return {
    async [Symbol.asyncDispose]() {
      for (const group of mine ? groups() : []) await run('find', [group, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', ';']);
    },
  };
}

/** Ten minutes: a busy machine takes twenty times as long as an idle one. */
const LONGEST_MS = 10 * 60_000;

/** Waits until `condition` holds; a rejection counts as not yet. @throws Error: not within ten
 *  minutes */
export async function until(condition: () => Promise<boolean>): Promise<void> {
  const limit = performance.now() + LONGEST_MS;
  while (!(await condition().catch(() => false))) {
    if (performance.now() > limit) throw new Error(`not within ${LONGEST_MS / 1000} s: ${condition.toString().slice(0, 200)}`);
    await sleep(200);
  }
}

interface NodePart {
  path: string;
  network: Network;
}

interface NodeContainerd {
  service: Service;
  socket: string;
  certificatesDirectory: string;
  ctr: Cluster['ctr'];
}

async function startNodeContainerd(
  stack: AsyncDisposableStack,
  part: NodePart & { authority: Authority; release: 'debian' | '2.4' },
): Promise<NodeContainerd> {
  const { path, network, authority, release } = part;
  const program = release === 'debian' ? await debianTool('containerd') : await toolPath('containerd');
  const ctrProgram = release === 'debian' ? await debianTool('ctr') : join(program, '../ctr');
  const [socket, certificatesDirectory, cni] = [join(path, 'containerd.sock'), join(path, 'certs.d'), join(path, 'cni')];
  await Promise.all([mkdir(certificatesDirectory), mkdir(cni)]);
  await writeFile(join(cni, '10-bridge.conflist'), JSON.stringify(network.cni));
  const configuration = join(path, 'containerd.toml');
  await writeFile(configuration, containerdConfiguration({ path, socket, certificatesDirectory, cni, release }));
  const [command, args] = network.wrap(program, ['--config', configuration]);
  const service = await startService({
    command,
    args,
    env: { ...process.env, SSL_CERT_FILE: authority.file, PATH: `${join(program, '..')}:${process.env['PATH'] ?? ''}` },
    ready: () => accepts(socket),
  });
  const ctr: Cluster['ctr'] = async (...words) =>
    (await run(ctrProgram, ['--address', socket, '--namespace', 'k8s.io', ...words], { maxBuffer: 2 ** 26 })).stdout;
  stack.defer(async () => {
    await endContainers(ctr, socket);
    await service[Symbol.asyncDispose]();
  });
  return { service, socket, certificatesDirectory, ctr };
}

interface ContainerdOptions {
  path: string;
  socket: string;
  certificatesDirectory: string;
  cni: string;
  release: 'debian' | '2.4';
}

function containerdConfiguration({ path, socket, certificatesDirectory, cni, release }: ContainerdOptions): string {
  const old = release === 'debian';
  const images = old ? 'io.containerd.grpc.v1.cri' : 'io.containerd.cri.v1.images';
  const runtime = old ? 'io.containerd.grpc.v1.cri' : 'io.containerd.cri.v1.runtime';
  const sandbox = old ? `sandbox_image = "${PAUSE}"` : `[plugins."${images}".pinned_images]\n  sandbox = "${PAUSE}"`;
  return `version = ${old ? 2 : 3}
root = "${path}/containerd/root"
state = "${path}/containerd/state"
[grpc]
  address = "${socket}"
[ttrpc]
  address = "${socket}.ttrpc"
[plugins."${runtime}"]
  restrict_oom_score_adj = true
  ${old ? sandbox : ''}
[plugins."${runtime}".cni]
  bin_dir${old ? '' : 's'} = ${old ? '"/usr/lib/cni"' : '["/usr/lib/cni"]'}
  conf_dir = "${cni}"
${old ? '' : sandbox}
[plugins."${images}".registry]
  config_path = "${certificatesDirectory}"
[plugins."io.containerd.internal.v1.opt"]
  path = "${path}/containerd/opt"
`;
}

async function containersOf(ctr: Cluster['ctr'], name: string): Promise<string[]> {
  return words(await ctr('containers', 'list', '--quiet', `labels."io.kubernetes.container.name"==${name}`));
}

function ignoreEnded(error: Error): void {
  if (!/not found|already finished/.test(error.message)) throw error;
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}

/** Ends the containers that the kubelet left running, also those that containerd is still creating:
 *  their shims would outlive it. */
async function endContainers(ctr: Cluster['ctr'], socket: string): Promise<void> {
  const shims = (): string[] => runningProcesses().filter((line) => line.includes('containerd-shim') && line.includes(socket));
  for (let rounds = 0; rounds === 0 || (rounds < SHIM_ROUNDS && shims().length > 0); rounds++) {
    if (rounds > 0) await sleep(200);
    const tasks = words(await ctr('tasks', 'list', '--quiet').catch(() => ''));
    await Promise.allSettled(tasks.map((id) => ctr('tasks', 'delete', '--force', id)));
  }
  for (const line of shims()) process.kill(Number.parseInt(line, 10), 'SIGKILL');
}

async function startKubelet(stack: AsyncDisposableStack, part: NodePart & { plane: ControlPlane; socket: string }): Promise<Service> {
  const { path, network, plane, socket } = part;
  const [configuration, kubeconfig] = [join(path, 'kubelet.yaml'), join(path, 'kubelet.kubeconfig')];
  await writeFile(kubeconfig, (await readFile(plane.kubeconfig, 'utf8')).replace('admin-token', 'node-token'));
  const settings = {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: 'AlwaysAllow' },
    cgroupDriver: 'cgroupfs',
    failSwapOn: false,
    containerRuntimeEndpoint: `unix://${socket}`,
    clusterDNS: [CLUSTER_DNS],
    clusterDomain: 'cluster.local',
    evictionHard: { 'memory.available': '100Mi', 'nodefs.available': '1%' },
    // Never: on a disk that is 85 % full, even the pause image would be removed.
    imageGCHighThresholdPercent: 100,
    featureGates: { ImageVolume: true },
    staticPodPath: join(path, 'static-pods'),
  };
  await mkdir(settings.staticPodPath);
  await writeFile(configuration, stringify(settings));
  const flags = [
    `--config=${configuration}`,
    `--kubeconfig=${kubeconfig}`,
    `--root-dir=${path}/kubelet`,
    `--hostname-override=${NODE}`,
    `--node-ip=${network.address}`,
  ];
  const [command, args] = network.wrap(await toolPath('kube-all'), ['kubelet', ...flags]);
  return stack.use(await startService({ command, args }));
}

async function startProxy(stack: AsyncDisposableStack, { path, network, plane }: NodePart & { plane: ControlPlane }): Promise<Service> {
  const configuration = join(path, 'proxy.yaml');
  const settings = {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    clientConnection: { kubeconfig: plane.kubeconfig },
    mode: 'iptables',
    clusterCIDR: network.pods,
    hostnameOverride: NODE,
    conntrack: { maxPerCore: 0 },
  };
  await writeFile(configuration, stringify(settings));
  const [command, args] = network.wrap(await toolPath('kube-all'), ['kube-proxy', `--config=${configuration}`]);
  return stack.use(await startService({ command, args }));
}
