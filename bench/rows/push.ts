import { execFile } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startDistribution } from '../../test/support/distribution.ts';
import { AUTHORIZATION, startHosted, USER, type HostedWorld } from '../../test/support/hosted.ts';
import { content, makeImage, pushImage, randomBytes, writeLayout, type Content } from '../../test/support/image.ts';
import { IN_MEMORY, temporaryDirectory } from '../../test/support/temporary.ts';
import { startVersitygw, type Versitygw } from '../../test/support/versitygw.ts';
import { toolPath } from '../../test/tools/tools.ts';
import { put } from '../load.ts';
import { peakOf } from '../peak.ts';
import { processorSeconds } from '../processor-time.ts';
import type { Measurement, Row, Turn } from '../row.ts';

const run = promisify(execFile);
const LAYERS = 8;
const SIZE = 16 * 2 ** 20;
const QUIET = { log: { level: 'error', accesslog: { disabled: true } } };

/** The layouts that are pushed: every turn has an image of its own, the same for each contestant.
 *  */
async function createLayouts(stack: AsyncDisposableStack): Promise<(turn: number) => Promise<string>> {
  const { path } = stack.use(await temporaryDirectory());
  const run = `${Date.now()}`;
  let last: { turn: number; layout: string } | undefined;
  return async (turn) => {
    if (last?.turn === turn) return last.layout;
    if (last !== undefined) await rm(last.layout, { recursive: true });
    const layout = join(path, String(turn));
    const layers = Array.from({ length: LAYERS }, () => SIZE);
    await writeLayout(layout, makeImage({ architectures: ['amd64'], layers, seed: `${run} ${turn}` }));
    last = { turn, layout };
    return layout;
  };
}

async function startCrane(stack: AsyncDisposableStack, host: string): Promise<(layout: string, image: string) => Promise<void>> {
  const { path } = stack.use(await temporaryDirectory());
  const env = { ...process.env, DOCKER_CONFIG: join(path, 'docker') };
  await mkdir(env.DOCKER_CONFIG);
  const crane = await toolPath('crane');
  await run(crane, ['auth', 'login', host, '-u', USER.username, '-p', USER.password], { env });
  return async (layout, image) => void (await run(crane, ['push', '--insecure', layout, `${host}/${image}`], { env }));
}

interface Pushed {
  host: string;
  /** Of the repositories. */
  prefix: string;
  pid: number;
}

async function pushTo(
  stack: AsyncDisposableStack,
  layoutOf: (turn: number) => Promise<string>,
  { host, prefix, pid }: Pushed,
): Promise<Turn<Measurement>> {
  const push = await startCrane(stack, host);
  return async (turn) => {
    const layout = await layoutOf(turn);
    const before = await processorSeconds(pid);
    const started = performance.now();
    await push(layout, `${prefix}push:${turn}`);
    const value = (performance.now() - started) / 1000;
    return { value, cpuSeconds: (await processorSeconds(pid)) - before };
  };
}

async function startOwn(stack: AsyncDisposableStack, s3: Versitygw | undefined): Promise<HostedWorld> {
  return stack.use(await startHosted(s3 === undefined ? {} : { storage: { s3: storageOf(s3) } }));
}

function storageOf({ endpoint, bucket, region, accessKeyId, secretAccessKey }: Versitygw): Record<string, unknown> {
  return { endpoint, bucket, region, accessKeyId, secretAccessKey };
}

function pushRow(kind: 'filesystem' | 's3', title: Row['title']): Row {
  return {
    name: `push-${kind}`,
    title,
    unit: 'seconds',
    turns: 5,
    targets: [{ of: 'distribution', against: 'registry', atLeast: 1.2 }],
    async open(stack) {
      const layoutOf = await createLayouts(stack);
      // Each has a bucket of its own, so that neither lists what the other has stored.
      const s3 = async () => (kind === 's3' ? stack.use(await startVersitygw()) : undefined);
      const [{ registry }, given] = [await startOwn(stack, await s3()), await s3()];
      const auth = { htpasswd: { [USER.username]: USER.password } };
      const other = stack.use(await startDistribution({ auth, configuration: QUIET, ...(given === undefined ? {} : { s3: given }) }));
      return {
        registry: await pushTo(stack, layoutOf, { host: registry.host, prefix: 'local/', pid: registry.pid }),
        distribution: await pushTo(stack, layoutOf, { host: other.host, prefix: '', pid: other.pid() }),
      };
    },
  };
}

const MANIFEST_CLIENTS = 64;
/** One core is to take so many manifests a second: with one core, and by the CPU time of all
 *  threads, which varies less on a busy machine. */
const MANIFESTS_A_SECOND = 2000;

/** Manifests that differ, of one config and one layer, each under a tag of its own. The registry
 *  has one core, and its directory is in memory: what is measured is the program, not the disk. */
const manifests: Row = {
  name: 'push-manifest',
  title: {
    en: 'Manifests pushed by 64 connections to one core, kept in a directory in memory; CPU time of 2,000 manifests',
    zh: '64 个连接向单个核心推送 manifest，存储为内存中的目录；CPU 时间按 2000 个 manifest 计',
  },
  unit: 'requests/s',
  targets: [
    { of: 'registry', atLeast: MANIFESTS_A_SECOND },
    { of: 'registry', measure: 'cpu', atMost: 1 },
  ],
  async open(stack) {
    const image = makeImage({ architectures: ['amd64'], layers: [1024] });
    const body = JSON.stringify({ ...JSON.parse(image.root.bytes.toString()), annotations: { number: '%' } });
    const enter = ['taskset', '--cpu-list', '0'];
    const directory = async (): Promise<string> => stack.use(await temporaryDirectory(IN_MEMORY)).path;
    const own = stack.use(await startHosted({ storage: { filesystem: { directory: await directory() } }, enter }));
    const other = stack.use(await startDistribution({ directory: await directory(), configuration: QUIET, enter }));
    const pushing = async (
      { url, pid, repository }: { url: string; pid: number; repository: string },
      authorization?: string,
    ): Promise<Turn<Measurement>> => {
      await pushImage(url, repository, 'latest', image, authorization);
      return async (turn) => {
        const before = await processorSeconds(pid);
        const { requests, seconds } = await put({
          seconds: turn === 0 ? 2 : 4,
          clients: MANIFEST_CLIENTS,
          url: `${url}/v2/${repository}/manifests/${turn}-%`,
          body: body.replace('%', `${turn}-%`),
          contentType: image.root.mediaType,
          ...(authorization === undefined ? {} : { authorization }),
        });
        const used = (await processorSeconds(pid)) - before;
        return { value: requests / seconds, cpuSeconds: (MANIFESTS_A_SECOND * used) / requests };
      };
    };
    return {
      registry: await pushing({ ...own.registry, repository: 'local/push' }, AUTHORIZATION),
      distribution: await pushing({ url: other.url, pid: other.pid(), repository: 'push' }),
    };
  },
};

const AT_ONCE = 32;

/** Each turn has a process, and a directory or bucket, of its own: a peak is a process's. */
const memory: Row = {
  name: 'push-memory',
  title: {
    en: '32 pushes of 16 MiB at once, of unknown length, to a directory and to S3: peak memory (VmHWM)',
    zh: '同时推送 32 个长度未知的 16 MiB blob，存储为目录或 S3：内存峰值（VmHWM）',
  },
  unit: 'bytes',
  turns: 1,
  targets: [
    { of: 'registry', atMost: 220e6 },
    { of: 'registry over S3', atMost: 220e6 },
  ],
  async open() {
    const blobs = Array.from({ length: AT_ONCE }, (_, n) => content('application/octet-stream', randomBytes(`memory ${n}`, SIZE)));
    const peak =
      (kind: 'filesystem' | 's3'): Turn =>
      async (turn) => {
        await using stack = new AsyncDisposableStack();
        const { registry } = await startOwn(stack, kind === 's3' ? stack.use(await startVersitygw()) : undefined);
        await Promise.all((turn === 0 ? blobs.slice(0, 1) : blobs).map((blob) => pushUnknown(`${registry.url}/v2/local/push`, blob)));
        return await peakOf(registry.pid); // before the process goes
      };
    return { registry: peak('filesystem'), 'registry over S3': peak('s3') };
  },
};

/** As crane and docker do: POST, PATCH without a length, PUT. */
async function pushUnknown(base: string, { bytes, digest }: Content): Promise<void> {
  const headers = { authorization: AUTHORIZATION };
  const begun = await fetch(`${base}/blobs/uploads/`, { method: 'POST', headers });
  const location = new URL(begun.headers.get('location') ?? '', base);
  const body = ReadableStream.from(pieces(bytes));
  const patched = await fetch(location, { method: 'PATCH', headers, body, duplex: 'half' });
  const ended = await fetch(`${location.href}?digest=${digest}`, { method: 'PUT', headers });
  if (patched.status !== 202 || ended.status !== 201)
    throw new Error(`${digest}: ${patched.status}, ${ended.status} ${await ended.text()}`);
}

async function* pieces(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 2 ** 16) yield bytes.subarray(at, at + 2 ** 16);
}

export const pushRows: readonly Row[] = [
  pushRow('filesystem', {
    en: 'crane pushes an image of 8 × 16 MiB, kept in a directory',
    zh: 'crane 推送 8 × 16 MiB 的镜像，存储为目录',
  }),
  pushRow('s3', { en: 'crane pushes an image of 8 × 16 MiB, kept in S3', zh: 'crane 推送 8 × 16 MiB 的镜像，存储为 S3' }),
  manifests,
  memory,
];
