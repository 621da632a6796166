import { request } from 'undici';
import { fieldsOf, itemsOf, textOf, textsOf, type Fields } from '../../io/untrusted.ts';
import { nameOf } from '../subscription/document.ts';

/** A group of nodes, or a node. */
export interface Member {
  name: string;
  /** The provider that has it; undefined: it is one of the config's own `proxies`, or a group. */
  provider: string | undefined;
}

export interface Group {
  name: string;
  /** mihomo's name: URLTest, Fallback, Selector, LoadBalance. */
  type: string;
  now: string;
  members: string[];
  /** '' if the group tests nothing. */
  testUrl: string;
  /** Such as `200-299/401`; `*` for any. */
  expectedStatus: string;
}

/** The result of testing a node. `unexpected`: the response had a status that the group does not
 *  accept. */
export type TestResult = { outcome: 'alive'; delayMs: number } | { outcome: 'unexpected' } | { outcome: 'dead' };

export interface NodeTest {
  url: string;
  expectedStatus: string;
  timeoutMs: number;
}

/** mihomo's own API. Every call @throws Error: mihomo does not answer, or refuses. */
export interface Controller {
  /** Whether the proxy listens on this port. */
  isUp(proxyPort: number): Promise<boolean>;
  /** Everything that traffic can go through, by name. */
  proxies(): Promise<Record<string, Fields>>;
  /** Undefined: there is no group of that name. */
  group(name: string): Promise<Group | undefined>;
  /** The names of the config's own nodes and groups, without the nodes that only a provider has. */
  ownNames(): Promise<Set<string>>;
  /** The nodes of all providers: the provider's name by the node's. */
  providers(): Promise<Map<string, string>>;
  /** How many rules each rule-provider has, by name. */
  ruleCounts(): Promise<Map<string, number>>;
  /** Sends one request through a node. mihomo remembers the result, and its groups go by it. */
  testNode(member: Member, test: NodeTest): Promise<TestResult>;
  /** Makes a group use one of its members for as long as that one is alive. */
  choose(group: string, member: string): Promise<void>;
  traffic(): Promise<{ uploaded: number; downloaded: number; connections: number }>;
  /** The connections: the names of the node and of the groups that led to it, by source port. */
  chains(): Promise<Map<number, string[]>>;
}

const TIME_LIMIT_MS = 15_000;

export function createController(address: { port: number; secret: string }): Controller {
  const call = createCall(address);
  const get = async (path: string): Promise<Fields> => fieldsOf(JSON.parse(accepted(await call(path)).text));

  return {
    async isUp(proxyPort) {
      try {
        return (await get('/configs'))['mixed-port'] === proxyPort;
      } catch {
        return false; // not yet, or no longer
      }
    },

    async proxies() {
      const [{ proxies }, provided] = await Promise.all([get('/proxies'), get('/providers/proxies')]);
      const named = Object.entries(fieldsOf(proxies)).map(([name, proxy]) => [name, fieldsOf(proxy)] as const);
      // The first list lacks the nodes that only a provider has.
      return Object.fromEntries([
        ...realProviders(provided).flatMap(([, nodes]) => nodes.map((node) => [nameOf(node), node] as const)),
        ...named,
      ]);
    },

    async group(name) {
      const { status, text } = await call(`/proxies/${encodeURIComponent(name)}`);
      const fields = status === 200 ? fieldsOf(JSON.parse(text)) : {};
      if (!Array.isArray(fields['all'])) return undefined;
      return {
        name,
        type: textOf(fields['type']) ?? '',
        now: textOf(fields['now']) ?? '',
        members: textsOf(fields['all']),
        testUrl: textOf(fields['testUrl']) ?? '',
        expectedStatus: textOf(fields['expectedStatus']) ?? '*',
      };
    },

    ownNames: async () => new Set(Object.keys(fieldsOf((await get('/proxies'))['proxies']))),

    async providers() {
      const provided = realProviders(await get('/providers/proxies'));
      return new Map(provided.flatMap(([provider, nodes]) => nodes.map((node) => [nameOf(node), provider] as const)));
    },

    async ruleCounts() {
      const { providers } = await get('/providers/rules');
      return new Map(Object.entries(fieldsOf(providers)).map(([name, provider]) => [name, Number(fieldsOf(provider)['ruleCount'])]));
    },

    async testNode(member, { url, expectedStatus, timeoutMs }) {
      const query = new URLSearchParams({ url, timeout: String(timeoutMs), expected: expectedStatus }).toString();
      const verb = member.provider === undefined ? 'delay' : 'healthcheck';
      const { status, text } = await call(`${pathOf(member)}/${verb}?${query}`, { limitMs: timeoutMs + TIME_LIMIT_MS });
      const delayMs = status === 200 ? Number(fieldsOf(JSON.parse(text))['delay']) : 0;
      if (!(delayMs > 0)) return { outcome: 'dead' };
      if (expectedStatus === '*') return { outcome: 'alive', delayMs };
      // The response has a delay for any status; only the node's state shows whether the status was
      // expected.
      const state = fieldsOf(fieldsOf((await get(pathOf(member)))['extra'])[url]);
      return state['alive'] === true ? { outcome: 'alive', delayMs } : { outcome: 'unexpected' };
    },

    async choose(group, member) {
      accepted(await call(`/proxies/${encodeURIComponent(group)}`, { method: 'PUT', body: JSON.stringify({ name: member }) }));
    },

    async traffic() {
      const { uploadTotal, downloadTotal, connections } = await get('/connections');
      return { uploaded: Number(uploadTotal), downloaded: Number(downloadTotal), connections: itemsOf(connections).length };
    },

    async chains() {
      const { connections } = await get('/connections');
      return new Map(itemsOf(connections).map((own) => [Number(fieldsOf(own['metadata'])['sourcePort']), textsOf(own['chains'])]));
    },
  };
}

interface Reply {
  status: number;
  text: string;
}

/** Sends requests to mihomo's API. */
function createCall({ port, secret }: { port: number; secret: string }) {
  const headers = { authorization: `Bearer ${secret}`, 'content-type': 'application/json' };
  return async (
    path: string,
    { method = 'GET', body, limitMs = TIME_LIMIT_MS }: { method?: 'GET' | 'PUT'; body?: string; limitMs?: number } = {},
  ): Promise<Reply> => {
    const options = { method, headers, signal: AbortSignal.timeout(limitMs), ...(body === undefined ? {} : { body }) };
    const response = await request(`http://127.0.0.1:${port}${path}`, options);
    return { status: response.statusCode, text: await response.body.text() };
  };
}

function accepted(reply: Reply): Reply {
  if (reply.status < 300) return reply;
  throw new Error(`mihomo answers ${reply.status}: ${reply.text.slice(0, 200)}`);
}

/** The nodes of each provider. A group is also listed as a provider, with the vehicle type
 *  Compatible. */
function realProviders({ providers }: Fields): [string, Fields[]][] {
  return Object.entries(fieldsOf(providers))
    .map(([name, provider]) => [name, fieldsOf(provider)] as const)
    .filter(([, provider]) => provider['vehicleType'] !== 'Compatible')
    .map(([name, provider]) => [name, itemsOf(provider['proxies'])]);
}

function pathOf({ name, provider }: Member): string {
  return provider === undefined
    ? `/proxies/${encodeURIComponent(name)}`
    : `/providers/proxies/${encodeURIComponent(provider)}/${encodeURIComponent(name)}`;
}
