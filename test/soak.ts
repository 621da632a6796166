// npm run soak [-- --minutes 5 --seed N]: runs a registry over S3 under random faults of upstream,
// S3 and clients. Exit code 1: a wrong byte, a request that hangs, an answer that no fault
// explains, a descriptor or a file left over, or memory that grows.
import { Agent } from 'node:http';
import { readdir, readlink } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { setTimeout as delay } from 'node:timers/promises';
import type { Digest } from '../src/oci/digest.ts';
import { blobKey } from '../src/store/keys.ts';
import { s3 } from '../src/store/s3/s3.ts';
import { createChance } from './support/chance.ts';
import { startFaultyProxy } from './support/faulty-proxy.ts';
import { randomBytes, sha256 } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { ask, type Answer, type Ask } from './support/soak-client.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startVersitygw } from './support/versitygw.ts';
import { nextWeather, s3Fault, upstreamFault, type Weather } from './support/weather.ts';

const KiB = 2 ** 10;
const MiB = 2 ** 20;
const BLOBS = 96;
const TAGS = 12;
const CLIENTS = 24;
/** The size of the local tier: about a third of all blobs. */
const ROOM = 64 * MiB;
/** How long after upstream has sent wrong bytes they may still be in transit to a client, in ms. */
const LIE_LASTS = 90_000;
/** The end of a blob that is withheld until its digest agrees. A range that ends before it may
 *  contain wrong bytes of upstream. */
const WITHHELD = 64 * KiB;
/** The limit of memory at the end, relative to that after the first minute. */
const GROWTH = 1.25;
/** How long upstream may be felt after its last fault, in ms: it is tried again with pauses, and
 *  Retry-After is heeded. */
const FELT = 20_000;
/** Statuses that a fault of upstream explains. One of S3 explains none. */
const EXCUSED: readonly number[] = [429, 500, 502, 503, 504];

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '5' }, seed: { type: 'string' } } });
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Date.now() % 1e9);
if (!(minutes > 0) || !Number.isInteger(seed)) throw new Error('--minutes wants a number above 0, --seed a whole number');
const chance = createChance(seed);
const print = (line: string): void => void process.stdout.write(`${line}\n`);
print(`seed ${seed}, ${minutes} minutes, ${CLIENTS} clients`);

const problems: string[] = [];
function wrong(problem: string): void {
  if (problems.push(problem) <= 20) print(`WRONG: ${problem}`);
}

await using upstream = await startScriptedUpstream();
await using gateway = await startVersitygw();
await using proxy = await startFaultyProxy(gateway.endpoint);
await using local = await temporaryDirectory();
const { bucket, region, accessKeyId, secretAccessKey } = gateway;
await using registry = await startRegistry({
  storage: { s3: { endpoint: proxy.url, bucket, region, accessKeyId, secretAccessKey } },
  local: { directory: local.path, maxSize: `${ROOM / MiB}MiB` },
  cache: { tagTtl: '2s', negativeTtl: '1s' },
  upstreams: { hub: { url: upstream.url } },
});
/** Past the proxy: removes blobs as the pruning of another replica does. */
const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey });
const pruning = s3({ endpoint: gateway.endpoint, bucket, region, credentials, forcePathStyle: true, createBucket: false, prefix: '' });

// The content: blobs of 1 KiB to 8 MiB, as many small ones as large ones, and tags that move.
const blobs = Array.from({ length: BLOBS }, (_, index) => {
  const bytes = randomBytes(`soak ${seed} ${index}`, Math.floor(KiB * 2 ** (13 * chance.next())));
  return { bytes, digest: upstream.addBlob(bytes), liedAt: -Infinity };
});
const byDigest = new Map(blobs.map((blob) => [blob.digest, blob]));
const tags = Array.from({ length: TAGS }, (_, index) => ({ repository: `team/app${index % 4}`, tag: `v${index}`, was: [] as Buffer[] }));
function move(tag: (typeof tags)[number]): void {
  const layers = [chance.pick(blobs), chance.pick(blobs)].map(({ digest, bytes }) => ({ digest, size: bytes.length }));
  const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, tag: tag.tag, version: tag.was.length, layers }));
  tag.was.push(manifest);
  upstream.addManifest(tag.repository, tag.tag, manifest);
}
tags.forEach(move);

const counts = { requests: 0, failures: new Map<string, number>(), bytes: 0, provisional: 0, fromUpstream: 0 };
const agent = new Agent({ keepAlive: true, maxSockets: 2 * CLIENTS });
const manifestsOf = (path: string): string => `${registry.url}/v2/hub/${path}`;
const anyRepository = (): string => `team/app${chance.below(4)}`;

function count(answer: Answer): void {
  counts.requests++;
  counts.bytes += answer.bytes;
  const failure = answer.how === 'refused' ? String(answer.status) : answer.how;
  if (failure !== 'whole' && failure !== 'left') counts.failures.set(failure, (counts.failures.get(failure) ?? 0) + 1);
}

/** @param mayBeWrong bytes that may be wrong while upstream sends wrong bytes */
async function check(url: string, options: Ask, mayBeWrong: (answer: Answer, started: number) => boolean): Promise<Answer> {
  const started = performance.now();
  const answer = await ask(agent, url, options);
  count(answer);
  const asked = `${options.method ?? 'GET'} ${url} ${JSON.stringify(options.headers ?? {})} → ${JSON.stringify(answer)}`;
  if (answer.how === 'hung') wrong(`it hangs: ${asked}`);
  const excused = troubledAt > started - FELT && (answer.how === 'cut' || EXCUSED.includes(answer.status));
  if ((answer.how === 'refused' || answer.how === 'cut') && !excused) wrong(`no fault explains it: ${asked}`);
  if (!answer.right) {
    if (mayBeWrong(answer, started)) counts.provisional++;
    else wrong(`wrong bytes: ${asked}`);
  }
  return answer;
}

async function pullBlob(): Promise<void> {
  const { bytes, digest } = chance.pick(blobs);
  const { length } = bytes;
  const shape = chance.pick(['whole', 'whole', 'whole', 'range', 'range', 'head', 'slow', 'leaving'] as const);
  const first = chance.below(length);
  const last = first + chance.below(length - first);
  const [range, start, end] = chance.pick([
    [`bytes=${first}-`, first, length],
    [`bytes=${first}-${last}`, first, last + 1],
    [`bytes=-${length - first}`, first, length],
  ] as const);
  const options: Ask = {
    expected: [bytes],
    ...(shape === 'head' ? { method: 'HEAD' } : {}),
    ...(shape === 'range' ? { headers: { range }, part: bytes.subarray(start, end) } : {}),
    ...(shape === 'slow' ? { rate: 500_000 + chance.below(2_000_000) } : {}),
    ...(shape === 'leaving' ? { leaveAfter: 1 + chance.below(length) } : {}),
  };
  await check(`${registry.url}/v2/hub/${anyRepository()}/blobs/${digest}`, options, ({ how, status }, started) => {
    const lied = (byDigest.get(digest)?.liedAt ?? -Infinity) > started - LIE_LASTS;
    return lied && (how !== 'whole' || (status === 206 && end <= length - WITHHELD));
  });
}

/** A tag resolves to one of its earlier digests: while upstream fails, the cached one is served. A
 *  digest returns its bytes. */
async function pullManifest(): Promise<void> {
  const tag = chance.pick(tags);
  const method = chance.pick(['GET', 'HEAD'] as const);
  const known = chance.pick(tag.was);
  const [reference, expected] = chance.happens(0.7) ? [tag.tag, tag.was] : [sha256(known), [known]];
  // A tag may move during a request: `was` is the same array then.
  await check(manifestsOf(`${tag.repository}/manifests/${reference}`), { method, expected }, () => false);
}

// The faults change every few seconds, independently for upstream and S3.
const weather: { upstream: Weather; s3: Weather } = { upstream: 'calm', s3: 'calm' };
/** When upstream did something wrong last. */
let troubledAt = -Infinity;
upstream.behave = ({ path }) => {
  const fault = upstreamFault(weather.upstream, chance);
  if (fault !== 'lie' && Object.keys(fault).length === 0) return fault;
  troubledAt = performance.now();
  if (fault !== 'lie') return fault;
  const digest = path.split('/').at(-1) ?? '';
  const blob = byDigest.get(digest);
  const truth = blob?.bytes ?? tags.find(({ repository, tag }) => path.endsWith(`/${repository}/manifests/${tag}`))?.was.at(-1);
  if (truth === undefined) return {};
  if (blob !== undefined) blob.liedAt = performance.now();
  const body = Buffer.from(truth);
  const at = chance.below(body.length);
  body.writeUInt8(body.readUInt8(at) ^ 0xff, at);
  return { body };
};
proxy.behave = () => s3Fault(weather.s3, chance);

const stop = new AbortController();
const { signal } = stop;
const pause = (ms: number) => delay(ms, undefined, { signal }).catch(() => undefined); // it ends
async function repeat(work: () => Promise<void> | void, between: () => number): Promise<void> {
  while (!signal.aborted) {
    await work();
    await pause(between());
  }
}

/** The open descriptors of the registry's process. The number of sockets depends on the clients;
 *  files are open blobs and spools. */
async function descriptors(): Promise<{ all: number; files: number }> {
  const directory = `/proc/${registry.pid}/fd`;
  const names = await readdir(directory);
  const targets = await Promise.all(names.map((name) => readlink(`${directory}/${name}`).catch(() => ''))); // closed meanwhile
  return { all: targets.filter((target) => target !== '').length, files: targets.filter((target) => target.startsWith('/')).length };
}
async function spoolFiles(): Promise<number> {
  const entries = await readdir(local.path, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile() && entry.parentPath.includes('.tmp')).length;
}
async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${registry.admin}/metrics`, { headers: { connection: 'close' } })).text();
  return Number(new RegExp(`^kube_registry_${name} (\\S+)$`, 'm').exec(text)?.[1]);
}
const median = (numbers: readonly number[]): number => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;
const MB = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

async function eventually(what: () => Promise<boolean>, problem: () => Promise<string>, seconds: number): Promise<void> {
  for (const end = performance.now() + 1000 * seconds; performance.now() < end; await delay(250)) if (await what()) return;
  wrong(await problem());
}

// A large one, by a thread, which has descriptors of its own.
const large = blobs.reduce((most, blob) => (blob.bytes.length > most.bytes.length ? blob : most));
await check(`${registry.url}/v2/hub/team/app0/blobs/${large.digest}`, { expected: [large.bytes] }, () => false);
agent.destroy();
await delay(8000); // idle connections to upstream and S3 go
const before = await descriptors();
print(`start: ${before.all} descriptors (${before.files} files), ${MB((await registry.memory()).resident)}`);
let ended = false;
void registry.exited.then((how) => !ended && wrong(`the registry ended: ${how}`));

const memory: number[] = [];
const atMinute: number[] = [];
async function report(minute: number): Promise<void> {
  const now = median(memory.splice(0).slice(-20));
  atMinute.push(now);
  const failures = [...counts.failures].toSorted(([a], [b]) => a.localeCompare(b)).map(([kind, times]) => `${times} × ${kind}`);
  const open = await descriptors();
  counts.fromUpstream += upstream.blobBytes();
  upstream.requests.length = 0;
  proxy.requests.length = 0;
  print(
    `minute ${minute}: ${counts.requests} requests, ${MB(counts.bytes)}, failed: ${failures.join(', ') || 'none'}; wrong, but cut or a range ` +
      `that no digest covers: ${counts.provisional}; resident ${MB(now)}; ${open.all} descriptors (${open.files} files), ` +
      `${await spoolFiles()} temporary files; local tier ${MB(await metric('local_bytes'))}; from upstream ${MB(counts.fromUpstream)}`,
  );
}

const running = [
  ...Array.from({ length: CLIENTS }, () =>
    repeat(
      () => (chance.happens(0.3) ? pullManifest() : pullBlob()),
      () => chance.below(150),
    ),
  ),
  repeat(
    () => void (weather.upstream = nextWeather(chance)),
    () => 3000 + chance.below(weather.upstream === 'calm' ? 27_000 : 6000), // long enough for what S3 alone does to show
  ),
  repeat(
    () => void (weather.s3 = nextWeather(chance)),
    () => 3000 + chance.below(6000),
  ),
  repeat(
    () => move(chance.pick(tags)),
    () => 1000,
  ),
  repeat(
    () => pruning.remove(blobKey(chance.pick(blobs).digest as Digest), { signal: AbortSignal.timeout(30_000) }),
    () => 200,
  ),
  repeat(
    async () => void memory.push((await registry.memory()).resident),
    () => 1000,
  ),
];
for (let minute = 1; minute <= Math.ceil(minutes); minute++) {
  await delay(60_000 * Math.min(1, minutes - minute + 1));
  await report(minute);
}
stop.abort();
Object.assign(weather, { upstream: 'calm', s3: 'calm' });
await Promise.all(running);

// After the faults: all blobs can be downloaded, and nothing is left over.
await delay(10_000);
for (const { bytes, digest } of blobs) {
  const answer = await check(`${registry.url}/v2/hub/team/app0/blobs/${digest}`, { expected: [bytes] }, () => false);
  if (answer.how !== 'whole') wrong(`${digest} does not come though all is well: ${JSON.stringify(answer)}`);
}
for (const { repository, tag, was } of tags) {
  const answer = await check(manifestsOf(`${repository}/manifests/${tag}`), { expected: was.slice(-1) }, () => false);
  if (answer.how !== 'whole') wrong(`${tag} does not come though all is well: ${JSON.stringify(answer)}`);
}
agent.destroy();
await eventually(
  async () => (await metric('upload_queue_blobs')) === 0,
  async () => `${await metric('upload_queue_blobs')} blobs still wait for S3`,
  60,
);
await eventually(
  async () => (await spoolFiles()) === 0,
  async () => `${await spoolFiles()} temporary files are left`,
  30,
);
const isBack = async (): Promise<boolean> => (await descriptors()).all <= before.all;
await eventually(isBack, async () => `${(await descriptors()).all} descriptors are open, ${before.all} were at the start`, 90);
const after = await descriptors();
const kept = await metric('local_bytes');
if (kept > ROOM) wrong(`the local tier has ${MB(kept)}`);
const growth = (atMinute.at(-1) ?? 0) / (atMinute[0] ?? 0);
if (growth > GROWTH) wrong(`memory has grown to ${growth.toFixed(2)} times what it was after the first minute`);
print(`end: ${after.all} descriptors (${after.files} files); memory ${growth.toFixed(2)} times that of minute 1; ${problems.length} wrong`);
ended = true;
await pruning.close();
process.exitCode = problems.length > 0 ? 1 : 0;
