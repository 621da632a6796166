import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile, stat } from 'node:fs/promises';
import { get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { parseDigest } from '../src/oci/digest.ts';
import { blobKey } from '../src/store/keys.ts';
import { isNumbered, startNumberedUpstream } from './support/numbered-upstream.ts';
import { startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { startVersitygw } from './support/versitygw.ts';

// npm run large-blobs: a blob that is larger than the local tier, for three clients over S3, and again without upstream. No part of
// `npm test`: it takes minutes, and several times the blob's size on disk.

const { values } = parseArgs({ options: { mebibytes: { type: 'string' }, tier: { type: 'string' }, megabytes: { type: 'string' } } });
const MiB = 2 ** 20;
const size = Number(values.mebibytes ?? 6 * 1024) * MiB;
const tier = Number(values.tier ?? 1024) * MiB;
/** Of the line to upstream, in bytes a second. */
const rate = Number(values.megabytes ?? 100) * 1e6;
const LINE_SHARE = 0.9;
const MAX_MEMORY = 230e6;
const MAX_COPIES = 1.02;

/** Reads the blob, and compares every byte. @returns seconds */
async function pull(url: string): Promise<number> {
  const started = performance.now();
  const [response] = (await once(get(url, { agent: false }), 'response')) as [IncomingMessage];
  assert.equal(response.statusCode, 200);
  let position = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    assert.ok(isNumbered(chunk, position), `wrong bytes at ${position}`);
    position += chunk.length;
  }
  assert.equal(position, size);
  return (performance.now() - started) / 1000;
}

/** The most memory that a process has ever had, in bytes. */
async function peak(pid: number): Promise<number> {
  return 1024 * Number(/^VmHWM:\s+(\d+) kB/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

function print(what: string, found: number, [sign, limit]: ['≤' | '≥', number]): void {
  const isHeld = sign === '≤' ? found <= limit : found >= limit;
  if (!isHeld) process.exitCode = 1;
  process.stdout.write(`${isHeld ? 'held' : 'NOT HELD'}  ${what}: ${found.toFixed(3)} (${sign} ${limit})\n`);
}

await using s3 = await startVersitygw();
const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
const start = (directory: string, url: string) =>
  startRegistry({
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
    local: { directory, maxSize: `${tier / MiB}MiB` },
    upstreams: { hub: { url, connections: 1 } },
  });
let path: string;
{
  await using upstream = await startNumberedUpstream({ size, rate });
  path = `/v2/hub/large/blob/blobs/${upstream.digest}`;
  await using local = await temporaryDirectory();
  await using registry = await start(local.path, upstream.url);
  const first = [pull(registry.url + path), pull(registry.url + path)];
  await until(() => upstream.sent() > size / 3, 'a third has been sent', 600_000);
  const late = pull(registry.url + path);
  const seconds = Math.max(...(await Promise.all(first)));
  const lateSeconds = await late;
  const joining = performance.now();
  const file = join(s3.directory, blobKey(parseDigest(upstream.digest)));
  await until(async () => (await stat(file).catch(() => undefined))?.size === size, 'the blob is in the storage', 600_000);
  process.stdout.write(
    `${size / MiB} MiB through a tier of ${tier / MiB} MiB: ${seconds.toFixed(1)} s, a client that joined at a third ${lateSeconds.toFixed(1)} s, `,
  );
  process.stdout.write(`joined ${((performance.now() - joining) / 1000).toFixed(1)} s later\n`);
  print('share of the line', size / seconds / rate, ['≥', LINE_SHARE]);
  print('copies from upstream for three clients', upstream.sent() / size, ['≤', MAX_COPIES]);
  print('memory in MB', (await peak(registry.pid)) / 1e6, ['≤', MAX_MEMORY / 1e6]);
}
await using local = await temporaryDirectory();
await using registry = await start(local.path, 'http://127.0.0.1:9');
const seconds = await pull(registry.url + path);
process.stdout.write(`without upstream: ${seconds.toFixed(1)} s, ${(size / seconds / 1e6).toFixed(0)} MB/s\n`);
print('memory in MB, without upstream', (await peak(registry.pid)) / 1e6, ['≤', MAX_MEMORY / 1e6]);
