import { request } from 'undici';
import { nameOf } from '../subscription/document.ts';
import { fieldsOf, itemsOf, type Fields } from '../../io/untrusted.ts';

/** mihomo's own API. Every call @throws Error: mihomo is not there, or refuses. */
export interface Controller {
  /** Whether the proxy takes connections on this port. */
  isUp(proxyPort: number): Promise<boolean>;
  /** Replaces the config by that file, without a connection cut and without a port moved. */
  apply(file: string): Promise<void>;
  /** Everything that traffic can go through, by name. */
  proxies(): Promise<Record<string, Fields>>;
  /** How many nodes a provider has; undefined: there is no such provider. */
  providerSize(name: string): Promise<number | undefined>;
  /** Asks all members of a group now; whether one of them answers. */
  test(group: string, url: string): Promise<boolean>;
  traffic(): Promise<{ uploaded: number; downloaded: number; connections: number }>;
}

/** Milliseconds. */
const TIME_LIMIT = 15_000;
const NODE_LIMIT = 5000;

export function createController({ host, port, secret }: { host: string; port: number; secret: string }): Controller {
  const base = `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
  const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' };

  async function call(path: string, options: { method?: 'PUT'; body?: string } = {}): Promise<{ status: number; text: string }> {
    const { statusCode, body } = await request(base + path, { ...options, headers, signal: AbortSignal.timeout(TIME_LIMIT) });
    return { status: statusCode, text: await body.text() };
  }

  async function get(path: string): Promise<Fields> {
    const { status, text } = await call(path);
    if (status !== 200) throw new Error(`mihomo answers ${status}: ${text.slice(0, 200)}`);
    return fieldsOf(JSON.parse(text));
  }

  return {
    async isUp(proxyPort) {
      try {
        return (await get('/configs'))['mixed-port'] === proxyPort;
      } catch {
        return false; // not yet, or not any more
      }
    },

    async apply(file) {
      const { status, text } = await call('/configs?force=false', { method: 'PUT', body: JSON.stringify({ path: file }) });
      if (status >= 300) throw new Error(`mihomo refuses the config: ${text.slice(0, 500)}`);
    },

    async proxies() {
      const [{ proxies }, { providers }] = await Promise.all([get('/proxies'), get('/providers/proxies')]);
      const named = Object.entries(fieldsOf(proxies)).map(([name, proxy]) => [name, fieldsOf(proxy)] as const);
      // The first list lacks what only a provider has; a group counts as a provider of its own here.
      const provided = Object.values(fieldsOf(providers)).filter((provider) => fieldsOf(provider)['vehicleType'] !== 'Compatible');
      const nodes = provided.flatMap((provider) => itemsOf(fieldsOf(provider)['proxies'])).map((node) => [nameOf(node), node] as const);
      return Object.fromEntries([...nodes, ...named]);
    },

    async providerSize(name) {
      const { providers } = await get('/providers/proxies');
      const provider = fieldsOf(providers)[name];
      return provider === undefined ? undefined : itemsOf(fieldsOf(provider)['proxies']).length;
    },

    async test(group, url) {
      const query = new URLSearchParams({ url, timeout: String(NODE_LIMIT) });
      const { status, text } = await call(`/group/${encodeURIComponent(group)}/delay?${query.toString()}`);
      // What is no group (a node, DIRECT) cannot be asked so: the request that follows will tell.
      return status === 404 || (status === 200 && Object.values(fieldsOf(JSON.parse(text))).some((delay) => Number(delay) > 0));
    },

    async traffic() {
      const { uploadTotal, downloadTotal, connections } = await get('/connections');
      return { uploaded: Number(uploadTotal), downloaded: Number(downloadTotal), connections: itemsOf(connections).length };
    },
  };
}
