import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { startFaultyProxy, type Fault } from './support/faulty-proxy.ts';
import { randomBytes, sha256 } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { startScriptedUpstream, type ScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startVersitygw, type Versitygw } from './support/versitygw.ts';
import { until } from './support/until.ts';

const KiB = 1024;
/** How long S3 is down, in seconds: `OUTAGE_SECONDS=20 npm test -- outage`. */
const OUTAGE = Number(process.env['OUTAGE_SECONDS'] ?? 6);
const PULLS_A_SECOND = 20;

async function start(upstream: ScriptedUpstream, s3: Versitygw, local: string, endpoint = s3.endpoint): Promise<ServingProgram> {
  const { bucket, region, accessKeyId, secretAccessKey } = s3;
  return startRegistry({
    storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
    local: { directory: local, maxSize: '1GiB' },
    upstreams: { hub: { url: upstream.url } },
  });
}

async function pull(registry: ServingProgram, digest: string): Promise<void> {
  const response = await fetch(`${registry.url}/v2/hub/a/b/blobs/${digest}`);
  assert.equal(response.status, 200, digest);
  assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest);
}

async function metric(registry: ServingProgram, name: string): Promise<number> {
  const text = await (await fetch(`${registry.admin}/metrics`)).text();
  const lines = text.split('\n').filter((line) => line.startsWith(`kube_registry_${name}`));
  return lines.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

/** The log events about the storage, in order. */
function changes(registry: ServingProgram): string[] {
  return registry.log().flatMap(({ event }) => (event === 'storage-failing' || event === 'storage-working' ? [event] : []));
}

function stored(registry: ServingProgram): Promise<void> {
  return until(async () => (await metric(registry, 'upload_queue_blobs')) === 0, 'everything is stored');
}

// Each has servers of its own, and mostly waits.
describe('an S3 that fails', { concurrency: 4 }, () => {
  test('promise 11: 200 pulls during an S3 outage succeed, and afterwards all of them are in S3', async (context) => {
    await using upstream = await startScriptedUpstream();
    await using s3 = await startVersitygw();
    await using local = await temporaryDirectory();
    await using registry = await start(upstream, s3, local.path);
    const digests: string[] = [];
    const pulls: Promise<void>[] = [];
    const load = async (seconds: number) => {
      const end = performance.now() + 1000 * seconds;
      for (let at = performance.now(); at < end; at += 1000 / PULLS_A_SECOND) {
        await delay(Math.max(0, at - performance.now()));
        // Two of three are new, the third has been pulled before.
        if (digests.length % 3 !== 2) digests.push(upstream.addBlob(randomBytes(`outage ${digests.length}`, 200 * KiB)));
        else digests.push(digests[Math.floor(digests.length / 2)] ?? assert.fail());
        pulls.push(pull(registry, digests.at(-1) ?? assert.fail()));
      }
    };
    await load(1);
    await s3.stop();
    await load(OUTAGE / 2);
    assert.equal((await fetch(`${registry.admin}/readyz`)).status, 200);
    for (const name of ['upload_queue_blobs', 'storage_errors_total'])
      await until(async () => (await metric(registry, name)) > 0, `${name} is above 0`);
    await load(OUTAGE / 2);
    await s3.start();
    await load(1);
    const results = await Promise.allSettled(pulls);
    const failed = results.filter(({ status }) => status === 'rejected');
    context.diagnostic(`${results.length} pulls, S3 away for ${OUTAGE} s: ${failed.length} failed`);
    assert.deepEqual(failed, []);
    await stored(registry);
    await until(() => changes(registry).at(-1) === 'storage-working', 'the log says that the storage works again');
    // A call may succeed while S3 is going down or coming up: then the log says so in between.
    const said = changes(registry);
    assert.ok(
      said.every((change, index) => change === (index % 2 === 0 ? 'storage-failing' : 'storage-working')),
      said.join(),
    );
    assert.ok(said.length < 10, `the log says it once a change, not once a call: ${said.join()}`);

    await using other = await temporaryDirectory();
    await using second = await start(upstream, s3, other.path);
    const before = upstream.blobBytes();
    for (const digest of new Set(digests)) await pull(second, digest);
    assert.equal(upstream.blobBytes(), before, 'every byte comes from S3');
  });

  test('promise 11: whatever S3 answers, or if it hangs, pulls succeed, and the blobs are stored later', async () => {
    await using upstream = await startScriptedUpstream();
    await using s3 = await startVersitygw();
    await using proxy = await startFaultyProxy(s3.endpoint);
    await using local = await temporaryDirectory();
    await using registry = await start(upstream, s3, local.path, proxy.url);
    const faults: Record<string, Fault> = {
      'an internal error': { status: 500 },
      'too busy': { status: 503, code: 'SlowDown' },
      refused: { status: 403, code: 'AccessDenied' },
      full: { status: 507, code: 'XMinioStorageFull' },
      'over its quota': { status: 403, code: 'QuotaExceeded' },
      'cut off': { reset: true },
      slow: { latency: 2500 },
      silent: { silent: true },
    };
    const digests: string[] = [];
    for (const [name, fault] of Object.entries(faults)) {
      proxy.behave = () => fault;
      const digest = upstream.addBlob(randomBytes(name, 300 * KiB));
      digests.push(digest);
      const started = performance.now();
      await pull(registry, digest);
      assert.ok(performance.now() - started < 15_000, `${name}: long before containerd gives up`);
      await pull(registry, digest);
    }
    proxy.behave = () => ({});
    await stored(registry);
    await using other = await temporaryDirectory();
    await using second = await start(upstream, s3, other.path, proxy.url);
    const before = upstream.blobBytes();
    for (const digest of digests) await pull(second, digest);
    assert.equal(upstream.blobBytes(), before);
  });

  test('promise 11: a blob that S3 cuts off in the middle still arrives whole and right', async () => {
    await using upstream = await startScriptedUpstream();
    await using s3 = await startVersitygw();
    await using proxy = await startFaultyProxy(s3.endpoint);
    await using one = await temporaryDirectory();
    await using two = await temporaryDirectory();
    const digest = upstream.addBlob(randomBytes('middle', 5000 * KiB));
    {
      await using first = await start(upstream, s3, one.path);
      await pull(first, digest);
      await stored(first);
    }
    await using second = await start(upstream, s3, two.path, proxy.url);
    const before = upstream.blobBytes();
    proxy.behave = ({ method, path }) => (method === 'GET' && path.includes('/v1/blobs/') ? { cutAfter: 2000 * KiB } : {});
    await pull(second, digest);
    assert.ok(upstream.blobBytes() - before < 3500 * KiB, 'only the rest comes from upstream');
  });

  test('promise 11: an S3 that starts after the registry gets its bucket and everything pulled until then', async () => {
    await using upstream = await startScriptedUpstream();
    await using s3 = await startVersitygw();
    await s3.stop();
    await using local = await temporaryDirectory();
    const { endpoint, region, accessKeyId, secretAccessKey } = s3;
    await using registry = await startRegistry({
      storage: { s3: { endpoint, bucket: 'made-late', region, accessKeyId, secretAccessKey, createBucket: true } },
      local: { directory: local.path },
      upstreams: { hub: { url: upstream.url } },
    });
    await pull(registry, upstream.addBlob(randomBytes('early', 300 * KiB)));
    await s3.start();
    await stored(registry);
  });
});
