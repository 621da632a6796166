// npm run bench:nodes [-- --nodes 16] [--megabits 160] [--mebibytes 64] [--without-sharing]
// [--faults-only] [--details]: nodes that pull one blob at the same time, each with limited
// bandwidth, as the registry's is. Needs root and iproute2. Exit code 1: a target was missed.
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';
import { startFakeNode } from '../test/support/fake-node.ts';
import { makeImage } from '../test/support/image.ts';
import { startAgent, startRegistry, type ServingProgram } from '../test/support/program.ts';
import { metric } from '../test/support/replicas.ts';
import { startScriptedUpstream } from '../test/support/scripted-upstream.ts';
import { temporaryDirectory } from '../test/support/temporary.ts';
import { until } from '../test/support/until.ts';
import { startLines, type Machine } from './lines.ts';
import { load } from './load.ts';
import { processorSeconds } from './processor-time.ts';

const run = promisify(execFile);
const MiB = 2 ** 20;
const PORT = 25000;
const SHARE_PORT = 25002;
/** Retries a failed pull, as the kubelet does. */
const ATTEMPTS = 10;
const WARM_UP_BYTES = 2 * MiB;

const { values } = parseArgs({
  options: {
    nodes: { type: 'string', default: '16' },
    megabits: { type: 'string', default: '160' },
    mebibytes: { type: 'string', default: '64' },
    'without-sharing': { type: 'boolean', default: false },
    'faults-only': { type: 'boolean', default: false },
    details: { type: 'boolean', default: false },
  },
});
const count = Number(values.nodes);
const size = Number(values.mebibytes) * MiB;
const targets = { last: count > 16 ? 3.6 : 3, copies: 4, faults: 6 };

interface Node extends Machine {
  agent: ServingProgram;
}
/** Times in ms. */
interface Reading {
  address: string;
  first: number;
  last: number;
  attempts: number;
}

await using stack = new AsyncDisposableStack();
const lines = stack.use(await startLines(count + 1, Number(values.megabits)));
const [registryMachine, ...machines] = lines.machines;
if (registryMachine === undefined) throw new Error('no machine');
const upstream = stack.use(await startScriptedUpstream(lines.outside));
const { path } = stack.use(await temporaryDirectory());
const knows = { upstreams: { dockerhub: { url: upstream.url } } };
const registry = stack.use(
  await startRegistry(
    {
      listen: `${registryMachine.address}:5000`,
      admin: `${registryMachine.address}:5001`,
      storage: { filesystem: { directory: join(path, 'data') } },
      ...knows,
    },
    { enter: registryMachine.enter },
  ),
);
const nodes: Node[] = [];
for (const machine of machines) {
  const share = { enabled: !values['without-sharing'], listen: `0.0.0.0:${SHARE_PORT}`, directory: join(path, machine.address) };
  const own = { listen: `127.0.0.1:${PORT}`, admin: `${machine.address}:25001`, registry: registry.url, fallback: false, share };
  const agent = stack.use(await startAgent(own, { registry: knows }, { enter: machine.enter }));
  nodes.push({ ...machine, agent });
  process.stderr.write('.');
}
process.stderr.write('\n');

let images = 0;
/** @returns the path of a new blob; `warm`: it is already in the registry */
async function addBlob(warm: boolean, bytes = size): Promise<{ path: string }> {
  const name = `library/bench-${++images}`;
  const image = makeImage({ architectures: ['amd64'], layers: [bytes], seed: randomBytes(8).toString('hex') });
  upstream.add(name, '1', image);
  await fetch(`${registry.url}/v2/dockerhub/${name}/manifests/1`);
  const digest = image.platforms[0]?.layers[0]?.digest ?? '';
  const path = `/v2/dockerhub/${name}/blobs/${digest}`;
  if (warm) await load({ clients: [{ urls: [`${registry.url}${path}`] }], enter: registryMachine?.enter ?? [] });
  return { path };
}

async function read({ address, enter }: Machine, blob: { path: string }): Promise<Reading> {
  const started = performance.now();
  const clients = [{ urls: [`http://127.0.0.1:${PORT}${blob.path}`] }];
  for (let attempts = 1; attempts <= ATTEMPTS; attempts++) {
    const begun = performance.now();
    try {
      const { clients: read } = await load({ clients, verify: true, enter });
      const first = begun - started + 1000 * (read[0]?.firstByte ?? Number.NaN);
      return { address, first, last: performance.now() - started, attempts };
    } catch {
      await delay(200); // the digest was wrong, or the connection was cut
    }
  }
  throw new Error(`wrong ${ATTEMPTS} times`);
}

interface Pulled {
  readings: Reading[];
  /** Copies of the blob that the registry sent. */
  copies: number;
  /** The processor time of all agents, in seconds. */
  cpu: number;
  /** The share of all processors that was in use, by whatever process. */
  busy: number;
}

async function copies(work: () => Promise<Reading[]>): Promise<Pulled> {
  const before = await metric(registry.admin, 'sent_bytes_total', 'dockerhub');
  const cpuBefore = await processorTime();
  const machineBefore = await machineTime();
  const readings = await work();
  const cpu = (await processorTime()) - cpuBefore;
  const machine = await machineTime();
  await delay(500);
  return {
    readings,
    copies: ((await metric(registry.admin, 'sent_bytes_total', 'dockerhub')) - before) / size,
    cpu,
    busy: 1 - (machine.idle - machineBefore.idle) / (machine.total - machineBefore.total),
  };
}

/** In ticks since the start of the machine. */
async function machineTime(): Promise<{ idle: number; total: number }> {
  const [line = ''] = (await readFile('/proc/stat', 'utf8')).split('\n', 1);
  const ticks = line.trim().split(/ +/).slice(1, 9).map(Number);
  return { idle: (ticks[3] ?? 0) + (ticks[4] ?? 0), total: ticks.reduce((sum, count) => sum + count, 0) };
}

/** The processor time of all agents, in seconds. */
async function processorTime(): Promise<number> {
  const each = await Promise.all(nodes.map(({ agent }) => processorSeconds(agent.pid).catch(() => 0))); // some were killed
  return each.reduce((sum, seconds) => sum + seconds, 0);
}

const slowest = (readings: readonly Reading[], key: 'first' | 'last'): number => Math.max(...readings.map((one) => one[key]));
/** One line for each node, the slowest last. */
async function tellDetails(readings: readonly Reading[]): Promise<void> {
  if (!values.details) return;
  for (const { address, first, last, attempts } of readings.toSorted((one, other) => one.last - other.last)) {
    const admin = nodes.find((node) => node.address === address)?.agent.admin ?? '';
    const [levels, blobs] = await Promise.all(['agent_depth_sum', 'agent_depth_count'].map((name) => metric(admin, name)));
    const times = `first byte after ${Math.round(first)} ms, last after ${Math.round(last)}`;
    process.stdout.write(`  ${address}: ${times}, ${attempts} attempts; so far ${blobs} downloads, depths ${levels} in total\n`);
  }
}

const failures: string[] = [];
function tell(name: string, ratio: number, limit: number, rest: string): void {
  const isMet = ratio <= limit;
  if (!isMet) failures.push(name);
  process.stdout.write(`${name}: ${ratio.toFixed(2)} × one alone (target ≤ ${limit}) ${isMet ? '✓' : '✗'}; ${rest}\n`);
}

const [single] = nodes;
if (single === undefined) throw new Error('no node');
if (!values['without-sharing']) {
  await until(() => nodes.every(({ agent }) => agent.log().some(({ event }) => event === 'sharing-blobs')), 'all nodes share');
}
// As in a cluster that has run for a while: every agent has pulled an image, and the registry knows
// the agent.
const former = await addBlob(true, WARM_UP_BYTES);
for (const node of nodes) await read(node, former);
const alone = (await read(single, await addBlob(true))).last;
process.stdout.write(`one alone: ${Math.round(alone)} ms\n`);

for (const kind of values['faults-only'] ? [] : (['warm', 'cold'] as const)) {
  const blob = await addBlob(kind === 'warm');
  const sentBefore = upstream.blobBytes();
  const { readings, copies: sent, cpu, busy } = await copies(() => Promise.all(nodes.map((node) => read(node, blob))));
  const fromUpstream = (upstream.blobBytes() - sentBefore) / size;
  const first = Math.round(slowest(readings, 'first'));
  const each = (1e9 * cpu) / count / size;
  const rest = `first byte after ${first} ms; the registry sent ${sent.toFixed(2)} copies, upstream ${fromUpstream.toFixed(2)}; an agent used ${each.toFixed(2)} s of processor time a GB; the machine was busy for ${Math.round(100 * busy)} % of the time`;
  tell(`${count} nodes, ${kind}`, slowest(readings, 'last') / alone, targets.last, rest);
  await tellDetails(readings);
  if (sent > targets.copies) failures.push(`${kind}: copies`);
}

await testFaults();
process.stdout.write(failures.length === 0 ? 'all targets are reached\n' : `missed: ${failures.join(', ')}\n`);
if (failures.length > 0) process.exitCode = 1;

/** One node in four is killed during the transfer, one in four has its port blocked, and one sends
 *  wrong bytes. */
async function testFaults(): Promise<void> {
  const blob = await addBlob(true);
  const liar = stack.use(await startFakeNode(lines.outside));
  liar.give = (response, bytes) => void response.writeHead(200, { 'content-length': bytes }).end(Buffer.alloc(bytes, 7));
  await liar.claim(`${registry.url}${blob.path}`);
  await delay(1000);
  await liar.claim(`${registry.url}${blob.path}`);
  const killed = nodes.filter((_, index) => index % 4 === 1);
  const blocked = nodes.filter((_, index) => index % 4 === 2);
  for (const { enter } of blocked) {
    const [command = '', ...words] = enter;
    await run(command, [...words, 'iptables', '-A', 'INPUT', '-p', 'tcp', '--dport', String(SHARE_PORT), '-j', 'DROP']);
  }
  const survivors = nodes.filter((node) => !killed.includes(node));
  const victims = killed.map((node) => read(node, blob).catch(() => undefined));
  setTimeout(() => killed.forEach(({ agent }) => void agent.stop('SIGKILL')), alone / 2);
  const { readings, copies: sent } = await copies(() => Promise.all(survivors.map((node) => read(node, blob))));
  const again = readings.filter(({ attempts }) => attempts > 1).length;
  tell(
    `${count} nodes, ${killed.length} killed, ${blocked.length} blocked, one wrong (asked ${liar.asked} times)`,
    slowest(readings, 'last') / alone,
    targets.faults,
    `${again} needed another attempt; the registry sent ${sent.toFixed(2)} copies`,
  );
  await tellDetails(readings);
  await Promise.all(victims);
}
