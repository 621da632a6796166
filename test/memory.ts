import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile, stat } from 'node:fs/promises';
import { get, type IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { blobKey } from '../src/store/keys.ts';
import { parseDigest } from '../src/oci/digest.ts';
import { randomBytes } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startVersitygw } from './support/versitygw.ts';

const BLOBS = 64;
const SIZE = 16 * 2 ** 20;
/** Bytes a second of every other client. */
const SLOW = 4_000_000;
/** Bytes. */
const LIMIT = 220_000_000;

// npm run memory: not part of `npm test`, since it needs a minute and an idle machine.

async function pull(url: string, digest: string, rate: number | undefined): Promise<void> {
  const hash = createHash('sha256');
  const started = performance.now();
  const [response] = (await once(get(url, { agent: false }), 'response')) as [IncomingMessage];
  assert.equal(response.statusCode, 200);
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    hash.update(chunk);
    bytes += chunk.length;
    if (rate !== undefined) await delay(Math.max(0, (1000 * bytes) / rate - (performance.now() - started)));
  }
  assert.equal(`sha256:${hash.digest('hex')}`, digest);
}

/** The most memory that a process has ever had, in bytes. */
async function peak(pid: number): Promise<number> {
  return 1024 * Number(/^VmHWM:\s+(\d+) kB/m.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

/** Waits for the objects themselves: the queue may be empty before the last blob has been added,
 *  and versitygw keeps the part of an interrupted upload. */
async function stored(directory: string, digests: readonly string[]): Promise<void> {
  for (const digest of digests) {
    const file = join(directory, blobKey(parseDigest(digest)));
    for (let tries = 0; (await stat(file).catch(() => undefined))?.size !== SIZE; tries++) {
      assert.ok(tries < 1200, `${digest} is not stored`);
      await delay(100);
    }
  }
}

test(`${BLOBS} cold blobs of 16 MiB at once over S3, half of the clients slow: all right, in little memory`, async (context) => {
  await using upstream = await startScriptedUpstream();
  await using s3 = await startVersitygw();
  await using compiled = await temporaryDirectory();
  const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
  const base = randomBytes('memory', SIZE);
  const digests = Array.from({ length: BLOBS }, (_, index) => {
    base.writeUInt32LE(index);
    return upstream.addBlob(Buffer.from(base));
  });
  const start = (directory: string) =>
    startRegistry(
      {
        storage: { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
        local: { directory },
        upstreams: { hub: { url: upstream.url } },
      },
      { env: { NODE_COMPILE_CACHE: compiled.path } },
    );
  {
    // As in the image, where the code is already compiled.
    await using local = await temporaryDirectory();
    await using first = await start(local.path);
    assert.equal((await fetch(`${first.url}/v2/`)).status, 200);
  }
  const passed: string[] = [];
  // The first has them from upstream and stores them; the second has them from S3.
  for (const from of ['upstream', 'S3']) {
    await using local = await temporaryDirectory();
    await using registry = await start(local.path);
    const idle = await peak(registry.pid);
    const before = upstream.blobBytes();
    await Promise.all(
      digests.map((digest, index) => pull(`${registry.url}/v2/hub/a/b/blobs/${digest}`, digest, index % 2 === 0 ? undefined : SLOW)),
    );
    await stored(s3.directory, digests);
    const most = await peak(registry.pid);
    const figure = `from ${from}: at most ${Math.round(most / 1e6)} MB, ${Math.round(idle / 1e6)} MB of them at its start`;
    context.diagnostic(figure);
    if (most > LIMIT) passed.push(figure);
    if (from === 'S3') assert.ok(upstream.blobBytes() - before < 0.5 * BLOBS * SIZE, 'most of it came from S3');
  }
  assert.deepEqual(passed, [], `more than ${LIMIT / 1e6} MB`);
});
