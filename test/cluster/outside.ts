import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startDistribution, type Distribution, type DistributionOptions } from '../support/distribution.ts';
import { pushImage, type TestImage } from '../support/image.ts';
import { startAirport, type Airport } from '../support/mihomo.ts';
import { startProcess } from '../support/process.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import { toolPath } from '../tools/tools.ts';
import type { Authority } from './authority.ts';
import type { Network } from './network.ts';

const run = promisify(execFile);

/** Upstreams by their names in the configuration, and the public host of each. */
const HOSTS = { dockerhub: 'registry-1.docker.io', ghcr: 'ghcr.io', quay: 'quay.io', k8s: 'registry.k8s.io' } as const;
export type UpstreamName = keyof typeof HOSTS;

/** More names, for servers that a test starts itself. */
const SPARE_HOSTS = ['unknown.example.net', 'passwords.example.net', 'tokens.example.net', 'auth.example.net'] as const;
type SpareHost = (typeof SPARE_HOSTS)[number];

/** The network outside the cluster: registries by their real names, with TLS; a DNS resolver; an
 *  airport (a provider's proxy server). */
export interface Outside extends AsyncDisposable {
  upstreams: Record<UpstreamName, Distribution>;
  /** `repository` and `tag` as at the upstream: `library/web`, `1`. */
  push(upstream: UpstreamName, repository: string, tag: string, image: TestImage): Promise<void>;
  /** Starts a registry with one image on port 443 of a spare name. It stops with the other
   *  servers. */
  open(host: SpareHost, content: { repository: string; image: TestImage; auth?: DistributionOptions['auth'] }): Promise<Distribution>;
  /** Servers that a test adds here stop with the other ones. */
  own<T extends AsyncDisposable>(this: void, started: Promise<T>): Promise<T>;
  /** The address of a spare name. */
  addressOf(this: void, host: SpareHost): string;
  /** A certificate for all names. */
  tls: { certificate: string; key: string };
  airport: Airport;
  /** The airport's subscription. */
  subscriptionUrl: string;
  /** Whether upstreams can be reached from the cluster without the airport. At first they can. */
  setDirect(open: boolean): Promise<void>;
}

/** Starts the servers on `network.outside`, each upstream on port 443 of an address of its own; the
 *  resolver listens on the node. */
export async function startOutside({ network, authority }: { network: Network; authority: Authority }): Promise<Outside> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const [first = '', ...addresses] = network.outside;
  const names = Object.keys(HOSTS) as UpstreamName[];
  const hosts = [...Object.values(HOSTS), ...SPARE_HOSTS];
  const addressOf = Object.fromEntries(hosts.map((host, n) => [host, addresses[n] ?? '']));
  const tls = await authority.issue(
    'upstreams',
    hosts.map((host) => `DNS:${host}`),
  );
  const upstreams = {} as Record<UpstreamName, Distribution>;
  const inward = {} as Record<UpstreamName, Distribution>;
  for (const name of names) {
    const directory = join(path, name);
    inward[name] = stack.use(await startDistribution({ directory }));
    upstreams[name] = stack.use(await startDistribution({ directory, tls, host: addressOf[HOSTS[name]] ?? '', port: 443 }));
  }
  await startResolver(stack, { network, path, addressOf });
  const airport = stack.use(await startAirport({ hosts: addressOf, host: first }));
  const subscriptionUrl = await serveSubscription(stack, first, { proxies: [airport.node] });
  const owned = stack.move();
  return {
    upstreams,
    push: (upstream, repository, tag, image) => pushImage(inward[upstream].url, repository, tag, image),
    async open(host, { repository, image, auth }) {
      const directory = join(path, host);
      {
        await using inside = await startDistribution({ directory });
        await pushImage(inside.url, repository, '1', image);
      }
      const registry = await startDistribution({
        directory,
        tls,
        host: addressOf[host] ?? '',
        port: 443,
        ...(auth === undefined ? {} : { auth }),
      });
      return owned.use(registry);
    },
    own: async (started) => owned.use(await started),
    addressOf: (host) => addressOf[host] ?? '',
    tls,
    airport,
    subscriptionUrl,
    async setDirect(open) {
      for (const chain of ['OUTPUT', 'FORWARD']) {
        for (const address of addresses) {
          await run(...network.wrap('iptables', ['--wait', open ? '-D' : '-I', chain, '-d', address, '-j', 'DROP']));
        }
      }
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Starts the resolver that the node and CoreDNS use for public names. */
async function startResolver(
  stack: AsyncDisposableStack,
  options: { network: Network; path: string; addressOf: Record<string, string> },
): Promise<void> {
  const { network, path, addressOf } = options;
  const file = join(path, 'Corefile');
  const lines = Object.entries(addressOf).map(([host, address]) => `    ${address} ${host}`);
  await writeFile(file, `. {\n  bind ${network.address}\n  hosts {\n${lines.join('\n')}\n  }\n}\n`);
  const [command, args] = network.wrap(await toolPath('coredns'), ['-conf', file]);
  stack.use(await startProcess({ command, args }));
}

async function serveSubscription(stack: AsyncDisposableStack, host: string, content: unknown): Promise<string> {
  const server = createServer((_request, response) => {
    response.end(JSON.stringify(content)); // JSON is YAML
  });
  server.listen(0, host);
  await once(server, 'listening');
  stack.defer(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://${host}:${(server.address() as AddressInfo).port}/subscription`;
}
