import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Agent, createServer, get, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { setTimeout as delay } from 'node:timers/promises';
import { OCI_MANIFEST } from '../src/oci/descriptor.ts';
import { listenOnLoopback } from './support/http.ts';
import { startRegistry } from './support/program.ts';
import { metric } from './support/replicas.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startVersitygw } from './support/versitygw.ts';

// npm run names:without-s3 [-- --minutes 10 --rate 100]: no part of `npm test`, as it takes minutes. So many new small images a second are pulled
// while S3 is away. Fails if a pull fails, or if the registry has grown by more than LIMIT_BYTES since its first minute.

const LIMIT_BYTES = 160 * 2 ** 20;
const LAYER_BYTES = 2048;
/** Pulls that may wait for their answers; beyond that the rate is not kept, which is reported. */
const AT_ONCE = 200;

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' }, rate: { type: 'string', default: '100' } } });
const minutes = Number(values.minutes);
const rate = Number(values.rate);

const digestOf = (bytes: string): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** The image of that number: its blobs by digest, and its manifest. */
function makeImage(index: number): { manifest: string; blobs: ReadonlyMap<string, string> } {
  const blobs = [`{"image":${index}}`, `layer ${index} `.padEnd(LAYER_BYTES, '.')];
  const [config, layer] = blobs.map((bytes) => ({
    mediaType: 'application/octet-stream',
    digest: digestOf(bytes),
    size: bytes.length,
  }));
  const manifest = JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] });
  return { manifest, blobs: new Map(blobs.map((bytes) => [digestOf(bytes), bytes])) };
}

/** Upstream: repository `a/INDEX` has the image of that number. */
const upstream = createServer((request, response) => {
  const [, index = '', kind = '', reference = ''] = /^\/v2\/a\/(\d+)\/(manifests|blobs)\/(.+)$/.exec(request.url ?? '') ?? [];
  const image = makeImage(Number(index));
  const body = kind === 'manifests' ? image.manifest : image.blobs.get(reference);
  if (body === undefined) {
    response.writeHead(kind === '' ? 200 : 404).end();
    return;
  }
  response.writeHead(200, {
    'content-type': kind === 'manifests' ? OCI_MANIFEST : 'application/octet-stream',
    'content-length': body.length,
    'docker-content-digest': digestOf(body),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
});

const agent = new Agent({ keepAlive: true, maxSockets: 50 });

async function read(url: string): Promise<string> {
  const [response] = (await once(get(url, { agent }), 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  assert.equal(response.statusCode, 200, text);
  return text;
}

async function pull(registry: string, index: number): Promise<void> {
  const repository = `${registry}/v2/hub/a/${index}`;
  const { manifest, blobs } = makeImage(index);
  assert.equal(await read(`${repository}/manifests/1`), manifest);
  for (const [digest, bytes] of blobs) assert.equal(await read(`${repository}/blobs/${digest}`), bytes);
}

async function residentBytes(pid: number): Promise<number> {
  return 1024 * Number(/^VmRSS:\s+(\d+) kB/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

const { url } = await listenOnLoopback(upstream);
try {
  await using s3 = await startVersitygw();
  await using local = await temporaryDirectory();
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
  await using registry = await startRegistry({
    upstreams: { hub: { url } },
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
    local: { directory: local.path, maxSize: '64MiB' },
  });
  await s3.stop();
  const started = performance.now();
  const running = new Set<Promise<void>>();
  let failed = 0;
  let first = 0;
  let last = 0;
  let index = 0;
  for (let minute = 0; minute <= minutes; minute++) {
    for (const end = started + minute * 60_000; performance.now() < end; index++) {
      const early = started + (1000 * index) / rate - performance.now();
      if (early > 1) await delay(early);
      if (running.size >= AT_ONCE) await Promise.race(running);
      const one: Promise<void> = pull(registry.url, index)
        .catch((error: unknown) => void (failed++ === 0 && console.log(error)))
        .finally(() => running.delete(one));
      running.add(one);
    }
    last = await residentBytes(registry.pid);
    if (minute === 1) first = last;
    const waiting = await metric(registry.admin, 'upload_queue_blobs');
    console.log(`minute ${minute}: ${index} images, ${failed} failed, ${Math.round(last / 2 ** 20)} MiB, ${waiting} blobs wait for S3`);
  }
  await Promise.all(running);
  await registry.stop('SIGKILL'); // SIGTERM lets it wait for S3
  assert.equal(failed, 0, 'pulls failed');
  assert.ok(last - first < LIMIT_BYTES, `the registry has grown by ${Math.round((last - first) / 2 ** 20)} MiB`);
} finally {
  agent.destroy();
  upstream.closeAllConnections();
  upstream.close();
}
