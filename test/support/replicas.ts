import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startRegistry, type ServingProgram } from './program.ts';
import { freePort, temporaryDirectory } from './temporary.ts';
import type { Versitygw } from './versitygw.ts';
import { until } from './until.ts';

export interface Replica extends ServingProgram {
  /** 127.0.0.2, as its peers know it. */
  address: string;
  /** Its local tier. */
  directory: string;
}

export interface ReplicasOptions {
  upstreams: Record<string, unknown>;
  s3: Versitygw;
  count: number;
  /** Merged over each replica's configuration; may remove `peers`. */
  registry?: Record<string, unknown>;
  /** The admin address of each; default: a free port of 127.0.0.1. */
  admin?: (address: string) => string;
  /** Further top-level keys of the configuration, such as `pullSecrets`. */
  rest?: Record<string, Record<string, unknown>>;
  env?: NodeJS.ProcessEnv;
  /** The replicas that each one finds under the name of the Service; default: all of them. */
  finds?: (address: string, all: readonly string[]) => readonly string[];
}

export interface Replicas extends AsyncDisposable {
  all: Replica[];
}

const SERVICE = 'replicas.test';

/** Replicas of one registry over one bucket: 127.0.0.1, 127.0.0.2, …, one port, found by name as a
 *  headless Service's are.
 *  @throws Error: not root */
export async function startReplicas(options: ReplicasOptions): Promise<Replicas> {
  if (process.getuid?.() !== 0) throw new Error('replicas see a hosts file of their own: run this test as root');
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await temporaryDirectory());
  const port = await freePort();
  const addresses = Array.from({ length: options.count }, (_, index) => `127.0.0.${index + 1}`);
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = options.s3;

  async function start(address: string): Promise<Replica> {
    const directory = join(path, address);
    const hosts = `${directory}.hosts`;
    const finds = options.finds?.(address, addresses) ?? addresses;
    await writeFile(hosts, ['127.0.0.1 localhost', ...finds.map((one) => `${one} ${SERVICE}`), ''].join('\n'));
    const configuration = {
      listen: `${address}:${port}`,
      storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
      local: { directory },
      peers: { service: `${SERVICE}:${port}` },
      upstreams: options.upstreams,
      ...(options.admin === undefined ? {} : { admin: options.admin(address) }),
      ...options.registry,
    };
    const program = stack.use(await startRegistry(configuration, { hosts, env: options.env ?? {} }, options.rest));
    return { ...program, address, directory };
  }

  const all = await Promise.all(addresses.map((address) => start(address)));
  if (options.registry === undefined || !('peers' in options.registry)) {
    for (const { admin, address } of all) {
      const others = (options.finds?.(address, addresses) ?? addresses).filter((one) => one !== address);
      await until(async () => (await metric(admin, 'peers_live')) === 1 + others.length, `${address} knows its peers`);
    }
  }
  const owned = stack.move();
  return { all, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** The sum of a metric's values, `name` without its prefix; `labels` as they are rendered. */
export async function metric(admin: string, name: string, labels = ''): Promise<number> {
  const text = await (await fetch(`${admin}/metrics`)).text();
  const lines = text.split('\n').filter((line) => new RegExp(`^kube_registry_${name}[ {]`).test(line) && line.includes(labels));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}
