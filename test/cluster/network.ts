import { execFile } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { startProcess, type RunningProcess } from '../support/process.ts';
import { debianTool } from '../tools/tools.ts';

const run = promisify(execFile);

/** The node's network: a namespace with the pods on a bridge, connected only to the test's network,
 *  which is a namespace too. It has folders of its own for the files of programs that have no
 *  option for their location. */
export interface Network extends AsyncDisposable {
  /** The test's own addresses, as the node and its pods see them: servers on them are outside the
   *  cluster. clash refuses private addresses, so these are for documentation (TEST-NET-3); only
   *  this namespace has a route to them. */
  outside: readonly string[];
  /** The node's address, as this machine sees it. */
  inside: string;
  /** The node's address in the cluster, on the bridge. */
  address: string;
  /** The subnet of pods. */
  pods: string;
  /** The command prefix that runs a command inside. */
  enter: readonly string[];
  wrap: (command: string, args: readonly string[]) => [string, string[]];
  /** The CNI configuration list for pods. */
  cni: unknown;
}

const ADDRESS = '10.88.0.1';
const PODS = '10.88.0.0/16';

/** Paths that the kubelet, containerd, CNI and iptables use regardless of their configuration. */
const FOLDERS = ['/run', '/var/log', '/var/lib/cni', '/var/lib/kubelet'];

/** Needs root, iproute2, iptables and nsenter. */
export async function startNetwork(): Promise<Network> {
  const ip = await debianTool('ip');
  await debianTool('iptables');
  const number = randomInt(16);
  const name = `kube-registry-${number}`;
  const [inside = '', ...outside] = Array.from({ length: 10 }, (_, n) => `203.0.113.${16 * number + n + 1}`);
  await run(ip, ['netns', 'add', name]);
  // Not `ip netns exec`, which hides the cgroups that the kubelet needs.
  const folders = await holdFolders(ADDRESS);
  const enter = ['nsenter', `--net=/run/netns/${name}`, `--mount=/proc/${folders.pid}/ns/mnt`, '--'];
  const wrap = (command: string, args: readonly string[]): [string, string[]] => ['nsenter', [...enter.slice(1), command, ...args]];
  for (const words of [
    'link set lo up',
    'link add cni0 type bridge',
    `addr add ${ADDRESS}/16 dev cni0`,
    'link set cni0 up',
    'route add default dev cni0',
  ]) {
    await run(...wrap(ip, words.split(' ')));
  }
  await run(ip, ['link', 'add', `kr${number}`, 'type', 'veth', 'peer', 'name', 'outside', 'netns', name]);
  for (const address of outside) await run(ip, ['addr', 'add', `${address}/28`, 'dev', `kr${number}`]);
  await run(ip, ['link', 'set', `kr${number}`, 'up']);
  await run(...wrap(ip, ['addr', 'add', `${inside}/28`, 'dev', 'outside']));
  await run(...wrap(ip, ['link', 'set', 'outside', 'up']));
  const switches = ['net.ipv4.ip_forward=1', 'net.bridge.bridge-nf-call-iptables=1', 'net.ipv4.conf.all.route_localnet=1'];
  await run(...wrap('sysctl', ['-qw', ...switches]));
  const ipam = { type: 'host-local', ranges: [[{ subnet: PODS }]], routes: [{ dst: '0.0.0.0/0' }] };
  return {
    outside,
    inside,
    address: ADDRESS,
    pods: PODS,
    enter,
    wrap,
    cni: {
      cniVersion: '0.4.0',
      name,
      plugins: [
        { type: 'bridge', bridge: 'cni0', isGateway: true, ipMasq: true, hairpinMode: true, ipam },
        { type: 'portmap', capabilities: { portMappings: true }, snat: true },
      ],
    },
    async [Symbol.asyncDispose]() {
      await folders[Symbol.asyncDispose]();
      // The kernel removes a namespace late, and the interface would stay until then.
      await run(ip, ['link', 'delete', `kr${number}`]);
      await run(ip, ['netns', 'delete', name]);
    },
  };
}

/** A process in a mount namespace with those folders empty, and with `resolver` as its DNS server.
 *  The folders, and every mount below, are removed with the last process in the namespace. */
async function holdFolders(resolver: string): Promise<RunningProcess> {
  for (const folder of FOLDERS) await mkdir(folder, { recursive: true });
  const script = `
    for folder in ${FOLDERS.join(' ')}; do mount -t tmpfs tmpfs $folder || exit; done
    mkdir /run/lock
    echo nameserver ${resolver} > /run/resolv.conf
    file=$(readlink -m /etc/resolv.conf)
    mkdir -p "$(dirname "$file")"
    [ -e "$file" ] || touch "$file"
    mount --bind /run/resolv.conf "$file" || exit
    echo ready
    exec sleep infinity`;
  const holder = await startProcess({ command: 'unshare', args: ['--mount', '--', 'sh', '-c', script] });
  while (!holder.output().includes('ready')) {
    const end = await Promise.race([holder.exited, sleep(20)]);
    if (end !== undefined) throw new Error(`no mount namespace can be had: ${holder.output()}`);
  }
  return holder;
}
