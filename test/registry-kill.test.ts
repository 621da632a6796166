import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { randomBytes, sha256 } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startVersitygw, type Versitygw } from './support/versitygw.ts';
import { metric } from './support/replicas.ts';
import { until } from './support/until.ts';

// KILLS=50 node --test test/registry-kill.test.ts: `npm test` limits the time of each file.

const KILLS = Number(process.env['KILLS'] ?? 10);
const SIZE = 6 * 2 ** 20;
/** How many blobs are pulled before each kill: the new one, and the last ones. */
const PULLED = 10;

/** Every file below a directory. */
async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true, recursive: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

/** False: it was refused, or the connection was cut. Complete bodies must be correct. */
async function pull(url: string, digest: string): Promise<boolean> {
  let bytes: Buffer;
  try {
    const response = await fetch(url);
    if (response.status !== 200) return false;
    bytes = Buffer.from(await response.arrayBuffer());
  } catch (error) {
    assert.ok(error instanceof TypeError, String(error)); // refused, or cut
    return false;
  }
  assert.equal(sha256(bytes), digest);
  return true;
}

// Each has servers of its own, and mostly waits.
describe('a registry that is killed', { concurrency: 2 }, () => {
  for (const kind of ['filesystem', 's3'] as const) {
    test(`promise 14: ${kind}: killed at ${KILLS} random moments, the registry never serves a wrong byte and leaves nothing half-written`, async (context) => {
      await using upstream = await startScriptedUpstream();
      await using directory = await temporaryDirectory();
      const s3: Versitygw | undefined = kind === 's3' ? await startVersitygw() : undefined;
      await using _ = { [Symbol.asyncDispose]: async () => s3?.[Symbol.asyncDispose]() };
      const blobs = Array.from({ length: KILLS }, (_, index) => upstream.addBlob(randomBytes(`${kind} ${index}`, SIZE)));
      upstream.behave = () => ({ rate: 30 * 2 ** 20 }); // a blob takes 0.2 s
      const path = directory.path;
      const configuration = {
        storage:
          s3 === undefined
            ? { filesystem: { directory: path } }
            : {
                s3: {
                  endpoint: s3.endpoint,
                  bucket: s3.bucket,
                  region: s3.region,
                  accessKeyId: s3.accessKeyId,
                  secretAccessKey: s3.secretAccessKey,
                },
              },
        local: { directory: path },
        upstreams: { hub: { url: upstream.url } },
      };

      let whole = 0;
      let takes = 1000; // ms, as this machine goes now
      for (let round = 0; round < KILLS; round++) {
        await using registry = await startRegistry(configuration);
        const started = performance.now();
        const known = blobs
          .slice(Math.max(0, round + 1 - PULLED), round + 1)
          .map((one) => pull(`${registry.url}/v2/hub/a/b/blobs/${one}`, one));
        void Promise.all(known).then(() => (takes = Math.max(takes, 1.5 * (performance.now() - started))));
        await delay(Math.random() * takes);
        await registry.stop('SIGKILL');
        whole += (await Promise.all(known)).filter(Boolean).length;
      }
      context.diagnostic(`${whole} pulls were whole before their registry was killed`);

      await using registry = await startRegistry(configuration);
      for (const digest of blobs) assert.ok(await pull(`${registry.url}/v2/hub/a/b/blobs/${digest}`, digest));
      if (s3 !== undefined) await until(async () => (await metric(registry.admin, 'upload_queue_blobs')) === 0, 'everything is stored');
      await registry.stop();
      const files = await filesBelow(path);
      assert.deepEqual(
        files.filter((file) => file.includes('.tmp') || file.includes('/pending/')),
        [],
        'nothing half-written is left',
      );
      const stored = [...files, ...(s3 === undefined ? [] : await filesBelow(s3.directory))].filter((file) => file.includes('v1/blobs/'));
      const places = s3 === undefined ? [path] : [path, s3.directory];
      assert.equal(stored.length, places.length * blobs.length, stored.join('\n'));
      for (const file of stored) assert.equal(sha256(await readFile(file)), `sha256:${file.split('/').at(-1) ?? ''}`);
    });
  }
});
