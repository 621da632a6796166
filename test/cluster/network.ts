import { execFile } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { promisify } from 'node:util';
import { debianTool } from '../tools/tools.ts';

const run = promisify(execFile);

/** A network of its own, with no way out but to this machine: pods on a bridge. */
export interface Network extends AsyncDisposable {
  /** This machine's address, as the node and its pods see it: what listens here is the world outside. */
  outside: string;
  /** The node's address, on the bridge. */
  address: string;
  /** Of pods. */
  pods: string;
  /** What must stand before a command to run it inside. */
  enter: readonly string[];
  wrap: (command: string, args: readonly string[]) => [string, string[]];
  /** For pods: CNI's configuration list. */
  cni: unknown;
}

const ADDRESS = '10.88.0.1';
const PODS = '10.88.0.0/16';

/** Needs root, iproute2, iptables and nsenter. */
export async function startNetwork(): Promise<Network> {
  const ip = await debianTool('ip');
  await debianTool('iptables');
  const number = randomInt(256);
  const name = `kube-registry-${number}`;
  const [outside, inside] = [`10.89.${number}.1`, `10.89.${number}.2`];
  await run(ip, ['netns', 'add', name]);
  // Not `ip netns exec`, which hides the cgroups that the kubelet needs.
  const enter = ['nsenter', `--net=/run/netns/${name}`, '--'];
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
  await run(ip, ['addr', 'add', `${outside}/30`, 'dev', `kr${number}`]);
  await run(ip, ['link', 'set', `kr${number}`, 'up']);
  await run(...wrap(ip, ['addr', 'add', `${inside}/30`, 'dev', 'outside']));
  await run(...wrap(ip, ['link', 'set', 'outside', 'up']));
  const switches = ['net.ipv4.ip_forward=1', 'net.bridge.bridge-nf-call-iptables=1', 'net.ipv4.conf.all.route_localnet=1'];
  await run(...wrap('sysctl', ['-qw', ...switches]));
  const ipam = { type: 'host-local', ranges: [[{ subnet: PODS }]], routes: [{ dst: '0.0.0.0/0' }] };
  return {
    outside,
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
      await run(ip, ['netns', 'delete', name]);
    },
  };
}
