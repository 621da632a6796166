// npm run proxy-figures [-- changes | faults | start | memory] [--minutes 5]: measures the clash
// sidecar from the users' point of view. Prints a table; takes about ten minutes and a quiet
// machine. Exit code 1: a pull failed during changes.
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { setTimeout as delay } from 'node:timers/promises';
import { startClash, startSubscriptionServer, through, type ClashProgram } from './support/clash.ts';
import { startAirport } from './support/mihomo.ts';
import { startRegistry } from './support/program.ts';
import { freePort, temporaryDirectory } from './support/temporary.ts';

const { values, positionals } = parseArgs({
  options: { minutes: { type: 'string', default: '5' } },
  allowPositionals: true,
});
const wanted = (name: string) => positionals.length === 0 || positionals.includes(name);
const resources = new AsyncDisposableStack();
const say = (line: string) => process.stdout.write(`${line}\n`);

type Weather = 'fine' | 'killed' | 'silent' | 'slow';
const SLOW_BYTES_PER_S = 10_000;

/** A relay in front of a subscription's node that applies network faults to its connections. */
async function startGate(target: number): Promise<{ port: number; set: (weather: Weather) => Promise<void> }> {
  const port = await freePort();
  const sockets = new Set<Socket>();
  let weather: Weather = 'fine';
  let server: Server | undefined;

  function pass(client: Socket): void {
    sockets.add(client);
    client.on('error', () => undefined);
    if (weather === 'silent') return void client.resume();
    const inner = connect(target, '127.0.0.1').on('error', () => client.destroy());
    client.pipe(inner);
    inner.on('data', (chunk: Buffer) => {
      if (weather === 'silent') return;
      client.write(chunk);
      if (weather !== 'slow') return;
      inner.pause();
      setTimeout(() => inner.resume(), (1000 * chunk.length) / SLOW_BYTES_PER_S);
    });
    inner.on('end', () => client.end());
    client.on('close', () => (inner.destroy(), sockets.delete(client)));
  }

  async function open(): Promise<void> {
    server = createServer(pass).listen(port, '127.0.0.1');
    await once(server, 'listening');
  }
  await open();
  const close = () => {
    server?.close();
    server = undefined;
    for (const socket of sockets) socket.destroy();
  };
  resources.defer(close);
  return {
    port,
    async set(next) {
      weather = next;
      if (next === 'killed') close();
      else if (server === undefined) await open();
    },
  };
}

/** An upstream of new blobs, at an address for each airport. `refusing`: the addresses that are
 *  answered 403. */
async function startUpstream(addresses: readonly string[]) {
  const blobs = new Map<string, Buffer>();
  const refusing = new Set<string>();
  const answer = (address: string) => (request: IncomingMessage, response: ServerResponse) => {
    if (refusing.has(address)) return void response.writeHead(403).end();
    const blob = request.url === '/v2/' ? Buffer.from('{}') : blobs.get(request.url?.split('/').pop() ?? '');
    if (blob === undefined) return void response.writeHead(404).end();
    response.writeHead(200, { 'content-length': blob.length, 'content-type': 'application/octet-stream' });
    return void response.end(request.method === 'HEAD' ? undefined : blob);
  };
  let port = 0;
  for (const address of addresses) {
    const server = createHttpServer(answer(address)).listen(port, address);
    await once(server, 'listening');
    ({ port } = server.address() as AddressInfo);
    resources.defer(() => {
      server.close();
      server.closeAllConnections();
    });
  }
  return {
    url: `http://hub.test:${port}`,
    refusing,
    add(size: number): string {
      const blob = randomBytes(size);
      const digest = `sha256:${createHash('sha256').update(blob).digest('hex')}`;
      blobs.set(digest, blob);
      return digest;
    },
  };
}

const upstream = await startUpstream(['127.0.0.2', '127.0.0.3']);
const first = resources.use(await startAirport({ hosts: { 'hub.test': '127.0.0.2' }, name: 'first' }));
const second = resources.use(await startAirport({ hosts: { 'hub.test': '127.0.0.3' }, name: 'second' }));
const subscriptions = resources.use(await startSubscriptionServer());
const healthCheck = { url: `${upstream.url}/v2/` };
const document = (...nodes: object[]) =>
  JSON.stringify({
    proxies: nodes,
    'proxy-groups': [{ name: 'P', type: 'url-test', proxies: nodes.map((node) => (node as { name: string }).name) }],
    rules: ['MATCH,P'],
  });

const pulling = (clash: ClashProgram) => startRegistry({ proxy: clash.proxy, upstreams: { hub: { url: upstream.url } } });

interface Pulls {
  ok: number;
  failed: string[];
  /** Milliseconds between two pulls that worked, the longest. */
  longestGap: number;
}

/** Starts so many pulls a second of new blobs, until `until` resolves, and waits for their ends. */
async function pullOn(registry: string, { perSecond, size }: { perSecond: number; size: number }, until: Promise<unknown>): Promise<Pulls> {
  const pulls: Pulls = { ok: 0, failed: [], longestGap: 0 };
  let last = performance.now();
  let ended = false;
  void until.then(() => (ended = true));
  async function pull(): Promise<void> {
    const response = await fetch(`${registry}/v2/hub/library/thing/blobs/${upstream.add(size)}`);
    await response.arrayBuffer();
    if (response.status !== 200) return void pulls.failed.push(String(response.status));
    pulls.ok++;
    pulls.longestGap = Math.max(pulls.longestGap, performance.now() - last);
    last = performance.now();
  }
  const running: Promise<void>[] = [];
  while (!ended) {
    running.push(pull().catch((error: Error) => void pulls.failed.push(error.message)));
    await delay(1000 / perSecond);
  }
  await Promise.all(running);
  return pulls;
}

const untilProven = async (clash: ClashProgram) => {
  while (!(await clash.status()).config.proven) await delay(100);
};

async function changes(minutes: number): Promise<void> {
  const sets = Array.from({ length: 6 }, (_, set) => `/rules-${set}`);
  for (const set of sets)
    subscriptions.answers.set(
      set,
      `payload:\n${Array.from({ length: 100_000 }, (_, line) => `  - '+.d${line}.example${set.slice(-1)}.test'\n`).join('')}`,
    );
  const dead = { ...first.node, name: 'dead', port: await freePort() };
  subscriptions.answers.set('/good', document(first.node));
  subscriptions.answers.set('/other', document(second.node, first.node));
  subscriptions.answers.set('/bad', document(dead));
  subscriptions.answers.set('/nonsense', 'proxies: [}');
  subscriptions.answers.set('/empty', '');
  subscriptions.answers.set('/slow', (_, response) => void setTimeout(() => response.end(document(second.node)), 8000));
  const kinds = ['/good', '/bad', '/other', '/empty', '/slow', '/nonsense'];
  const urlFile = join(resources.use(await temporaryDirectory()).path, 'url');
  const change = (path: string) => writeFile(urlFile, `${subscriptions.url(path)}&n=${Math.random()}\n`);
  await change('/good');
  const providers = Object.fromEntries(
    sets.map((set) => [set.slice(1), { type: 'http', behavior: 'domain', url: subscriptions.url(set), interval: 86_400 }]),
  );
  const rules = { prepend: sets.map((set) => `RULE-SET,${set.slice(1)},REJECT`) };
  const own = { mode: 'full', healthCheck, subscriptions: [{ name: 'airport', urlFile, interval: '1h' }] };
  await using clash = await startClash({ ...own, override: { 'rule-providers': providers, rules } });
  await untilProven(clash);
  await using registry = await pulling(clash);
  await delay(20_000); // the rule sets are there
  const end = Date.now() + minutes * 60_000;
  const changing = (async () => {
    for (let count = 0; Date.now() < end; count++) {
      await change(kinds[count % kinds.length] ?? '');
      await delay(2000);
    }
  })();
  const { ok, failed, longestGap } = await pullOn(registry.url, { perSecond: 10, size: 5000 }, changing);
  const applied = /clash_configs_total\{outcome="applied"\} (\d+)/.exec(await clash.metrics())?.[1];
  say(
    `changes for ${minutes} min: ${ok} pulls, ${failed.length} failed, ${(longestGap / 1000).toFixed(1)} s the longest without one, ${applied} configs applied`,
  );
  if (failed.length > 0) process.exitCode = 1;
}

async function faults(): Promise<void> {
  for (const fault of ['killed', 'silent', 'slow', '403'] as const) {
    const [one, other] = [await startGate(first.node.port), await startGate(second.node.port)];
    subscriptions.answers.set(
      '/faults',
      JSON.stringify({
        proxies: [
          { ...first.node, port: one.port },
          { ...second.node, port: other.port },
        ],
      }),
    );
    await using clash = await startClash({ healthCheck, subscriptions: [{ name: 'airport', url: subscriptions.url('/faults') }] });
    await untilProven(clash);
    await using registry = await pulling(clash);
    await delay(3000);
    const { chosen } = await clash.status();
    const running = delay(60_000);
    const size = fault === 'slow' ? 200_000 : 5000;
    const pulls = pullOn(registry.url, { perSecond: 2, size }, running);
    await delay(5000);
    if (fault === '403') upstream.refusing.add(chosen === 'first' ? '127.0.0.2' : '127.0.0.3');
    else await (chosen === 'first' ? one : other).set(fault);
    const { ok, failed, longestGap } = await pulls;
    upstream.refusing.clear();
    say(`node ${fault}: ${(longestGap / 1000).toFixed(1)} s the longest without a pull, ${ok} pulls, ${failed.length} failed`);
  }
}

/** `count` nodes of which every `aliveEvery`th lives; the others take connections and say
 *  nothing. */
async function nodes(count: number, aliveEvery: number): Promise<string> {
  const silent = createServer((socket) => void socket.on('error', () => undefined).resume()).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  resources.defer(() => void silent.close());
  const { port } = silent.address() as AddressInfo;
  const proxies = Array.from({ length: count }, (_, index) => ({
    ...first.node,
    name: `node ${index}`,
    port: index % aliveEvery === aliveEvery - 1 ? first.node.port : port,
  }));
  return JSON.stringify({ proxies });
}

const kilobytes = async (pid: string, key: string) =>
  Number(new RegExp(`${key}:\\s+(\\d+)`).exec(await readFile(`/proc/${pid}/status`, 'utf8').catch(() => ''))?.[1] ?? 0);

async function start(): Promise<void> {
  for (const aliveEvery of [1, 10, 100]) {
    subscriptions.answers.set('/start', await nodes(2000, aliveEvery));
    const began = performance.now();
    await using clash = await startClash({ healthCheck, subscriptions: [{ name: 'airport', url: subscriptions.url('/start') }] });
    while ((await through(clash.proxy, `${upstream.url}/v2/`).catch(() => ({ status: 0 }))).status !== 200) await delay(50);
    say(`start with 2000 nodes, one in ${aliveEvery} alive: ${((performance.now() - began) / 1000).toFixed(1)} s to the first request`);
  }
}

async function memory(): Promise<void> {
  for (const count of [100, 2000, 6000]) {
    subscriptions.answers.set('/memory', await nodes(count, 2));
    await using clash = await startClash({ healthCheck, subscriptions: [{ name: 'airport', url: subscriptions.url('/memory') }] });
    let most = 0;
    for (const end = Date.now() + 60_000; Date.now() < end; await delay(200)) {
      const children = (await readFile(`/proc/${clash.pid}/task/${clash.pid}/children`, 'utf8')).trim().split(' ');
      const sizes = await Promise.all([String(clash.pid), ...children].map((pid) => kilobytes(pid, 'VmRSS')));
      most = Math.max(
        most,
        sizes.reduce((sum, size) => sum + size, 0),
      );
    }
    await clash.status();
    const child = (await readFile(`/proc/${clash.pid}/task/${clash.pid}/children`, 'utf8')).trim().split(' ').at(-1) ?? '';
    const [own, mihomo] = [await kilobytes(String(clash.pid), 'VmRSS'), await kilobytes(child, 'VmRSS')];
    say(
      `memory with ${count} nodes: sidecar ${Math.round(own / 1024)} MiB, mihomo ${Math.round(mihomo / 1024)} MiB; all processes ${Math.round(most / 1024)} MiB at most`,
    );
  }
}

try {
  if (wanted('faults')) await faults();
  if (wanted('start')) await start();
  if (wanted('memory')) await memory();
  if (wanted('changes')) await changes(Number(values.minutes));
} finally {
  await resources.disposeAsync();
}
