import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import { ProxyAgent } from 'undici';
import type { ClashStatus } from '../../src/clash/supervise.ts';
import { toolPath } from '../tools/tools.ts';
import { geoDirectory } from './mihomo.ts';
import { accepts, answersOk } from './process.ts';
import { startProgram, type Program } from './program.ts';
import { freePort, temporaryDirectory } from './temporary.ts';
import { listenOnLoopback } from './http.ts';

export type Answer = string | Buffer | ((request: IncomingMessage, response: ServerResponse) => void);

export interface SubscriptionServer extends AsyncDisposable {
  /** URL of `path`. The key in it is a secret. */
  url(path: string): string;
  /** Sets the response of a path; undefined: 404. */
  answers: Map<string, Answer>;
  requests: { path: string; headers: IncomingMessage['headers'] }[];
}

/** In every subscription's URL. */
export const SUBSCRIPTION_KEY = 'f3a1b2c4d5e6subscriptionkey';

/** Serves subscriptions over HTTP. */
export async function startSubscriptionServer(): Promise<SubscriptionServer> {
  const answers = new Map<string, Answer>();
  const requests: SubscriptionServer['requests'] = [];
  const server = createServer((request, response) => {
    const path = (request.url ?? '').split('?', 1)[0] ?? '';
    requests.push({ path, headers: request.headers });
    const answer = answers.get(path);
    if (typeof answer === 'function') answer(request, response);
    else if (answer === undefined) response.writeHead(404).end();
    else response.setHeader('subscription-userinfo', 'upload=1024; download=2048; total=1048576; expire=1900000000').end(answer);
  });
  const listening = await listenOnLoopback(server);
  return {
    url: (path) => `${listening.url}${path}?key=${SUBSCRIPTION_KEY}`,
    answers,
    requests,
    [Symbol.asyncDispose]: () => listening[Symbol.asyncDispose](),
  };
}

export interface ClashProgram extends Program {
  /** http://127.0.0.1:PORT of the proxy, of the shared one, and of the admin. */
  proxy: string;
  shared: string;
  admin: string;
  /** host:port of mihomo's controller. */
  controller: string;
  /** The configuration's key `clash`, to start it again or ask it. */
  configuration: Record<string, unknown>;
  /** Where mihomo keeps its files. */
  directory: string;
  status(): Promise<ClashStatus>;
  metrics(): Promise<string>;
}

/** `kube-registry clash`, its proxy open, on free ports; `own` is laid over the configuration's key
 *  of that name. */
export async function startClash(own: Record<string, unknown>): Promise<ClashProgram> {
  const temporary = await temporaryDirectory();
  const address = async () => `127.0.0.1:${await freePort()}`;
  const ports = { proxy: await freePort(), shared: 0, ...(own['ports'] as { shared?: number } | undefined) };
  const configuration: Record<string, unknown> = {
    geodata: await geoDirectory(),
    directory: temporary.path,
    controller: await address(),
    admin: await address(),
    ...own,
    ports,
  };
  const admin = `http://${String(configuration['admin'])}`;
  // Found by its name, as in the image.
  const env = { PATH: `${dirname(await toolPath('mihomo'))}:${process.env['PATH'] ?? ''}` };
  const ready = async () => (await answersOk(`${admin}/readyz`)) && accepts(`127.0.0.1:${ports.proxy}`);
  const program = await startProgram('clash', { log: { level: 'debug', format: 'json' }, clash: configuration }, { ready, env });
  const get = async (path: string) => (await fetch(admin + path, { signal: AbortSignal.timeout(30_000) })).text();
  return {
    ...program,
    proxy: `http://127.0.0.1:${ports.proxy}`,
    shared: `http://127.0.0.1:${ports.shared}`,
    admin,
    controller: String(configuration['controller']),
    configuration,
    directory: String(configuration['directory']),
    status: async () => JSON.parse(await get('/status')) as ClashStatus,
    metrics: () => get('/metrics'),
    async [Symbol.asyncDispose]() {
      await program[Symbol.asyncDispose]();
      await temporary[Symbol.asyncDispose]();
    },
  };
}

/** One GET through a proxy, by a connection of its own. Rejects when it is refused or cut. */
export async function through(proxy: string, url: string): Promise<{ status: number; body: string }> {
  const dispatcher = new ProxyAgent({ uri: proxy, proxyTunnel: true });
  try {
    const { origin, pathname } = new URL(url);
    const { statusCode, body } = await dispatcher.request({ origin, path: pathname, method: 'GET', signal: AbortSignal.timeout(20_000) });
    return { status: statusCode, body: await body.text() };
  } finally {
    await dispatcher.destroy();
  }
}
