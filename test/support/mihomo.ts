import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { request, type IncomingMessage } from 'node:http';
import { dirname, join } from 'node:path';
import { toolPath } from '../tools/tools.ts';
import { accepts, startProcess, type RunningProcess } from './process.ts';
import { freePort, temporaryDirectory } from './temporary.ts';

export interface Mihomo extends AsyncDisposable {
  /** host:port of its controller, whose secret is `secret`. */
  controller: string;
  secret: string;
  process: RunningProcess;
  /** Bytes since it started, by its own count. */
  traffic(): Promise<{ uploadTotal: number; downloadTotal: number }>;
  stop(): Promise<void>;
  /** With the same configuration. */
  start(): Promise<void>;
}

/** Runs mihomo with this configuration; it gets a controller, and needs no geo data.
 *  @param isReady - asked once all ports accept connections */
export async function startMihomo(
  configuration: Record<string, unknown>,
  isReady: (controller: string) => Promise<boolean> = () => Promise.resolve(true),
): Promise<Mihomo> {
  const temporary = await temporaryDirectory();
  const controller = `127.0.0.1:${await freePort()}`;
  const secret = randomUUID();
  const file = join(temporary.path, 'config.yaml');
  const own = { 'external-controller': controller, secret, ipv6: false, 'geo-auto-update': false, profile: { 'store-selected': false } };
  await writeFile(file, JSON.stringify({ ...own, ...configuration }));
  const command = await toolPath('mihomo');
  const { 'mixed-port': port, listeners = [] } = configuration as {
    'mixed-port'?: number;
    listeners?: { listen?: string; port: number }[];
  };
  const ports = [
    ...(port === undefined ? [] : [`127.0.0.1:${port}`]),
    ...listeners.map(({ listen = '127.0.0.1', port }) => `${listen}:${port}`),
  ];
  // The controller is up before the ports that clients use.
  const ready = async () => (await Promise.all([controller, ...ports].map(accepts))).every(Boolean) && isReady(controller);
  let child = await startProcess({ command, args: ['-d', temporary.path, '-f', file], ready });
  return {
    controller,
    secret,
    get process() {
      return child;
    },
    async traffic() {
      const response = await fetch(`http://${controller}/connections`, { headers: { authorization: `Bearer ${secret}` } });
      return (await response.json()) as { uploadTotal: number; downloadTotal: number };
    },
    async stop() {
      await child.stop('SIGKILL');
    },
    async start() {
      child = await startProcess({ command, args: ['-d', temporary.path, '-f', file], ready });
    },
    async [Symbol.asyncDispose]() {
      await child[Symbol.asyncDispose]();
      await temporary[Symbol.asyncDispose]();
    },
  };
}

export interface AirportOptions {
  /** Names at the far end: name → address. Other names are looked up by the machine. */
  hosts?: Record<string, string>;
  /** Names that cannot be reached from there. */
  blocked?: readonly string[];
  name?: string;
  /** Where it listens; default 127.0.0.1. */
  host?: string;
}

export interface Airport extends Mihomo {
  /** The node as a subscription lists it (a mihomo proxy). */
  node: { name: string; type: 'ss'; server: string; port: number; cipher: string; password: string };
}

/** The far end of a subscription: a shadowsocks server that goes out directly. */
export async function startAirport(options: AirportOptions = {}): Promise<Airport> {
  const { hosts = {}, blocked = [], name = 'node', host = '127.0.0.1' } = options;
  const node = { name, type: 'ss', server: host, port: await freePort(), cipher: 'aes-128-gcm', password: randomUUID() } as const;
  const { cipher, password, port } = node;
  const probe = await freePort();
  const configuration = {
    mode: 'rule',
    hosts,
    'mixed-port': probe,
    listeners: [{ name: 'in', type: 'shadowsocks', listen: host, port, cipher, password }],
    rules: [...blocked.map((host) => `DOMAIN,${host},REJECT`), 'MATCH,DIRECT'],
  };
  // mihomo accepts connections some time before it forwards them, and closes those that come in between.
  const mihomo = await startMihomo(configuration, (controller) => forwards(probe, controller));
  return Object.defineProperties(mihomo, { node: { value: node } }) as Airport;
}

/** Whether the proxy on this port of 127.0.0.1 passes on a request to `target`, which answers with any status. */
async function forwards(port: number, target: string): Promise<boolean> {
  const asking = request({ host: '127.0.0.1', port, path: `http://${target}/`, headers: { host: target }, timeout: 5000 }).end();
  try {
    const [response] = (await once(asking, 'response')) as [IncomingMessage];
    response.resume();
    return response.statusCode !== 502;
  } catch {
    return false;
  }
}

/** mihomo's geo files (geoip.dat, geosite.dat, country.mmdb, ASN.mmdb), as the image ships them. */
export async function geoDirectory(): Promise<string> {
  return join(dirname(await toolPath('mihomo')), '../geodata');
}
