import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { randomBytes, sha256 } from '../support/image.ts';
import { startRegistry, type ServingProgram } from '../support/program.ts';
import { startScriptedUpstream } from '../support/scripted-upstream.ts';
import { temporaryDirectory } from '../support/temporary.ts';
import type { S3Store } from '../../src/store/s3/options.ts';
import { s3 } from '../../src/store/s3/s3.ts';
import { storeConformance } from '../../src/testing/store-suite.ts';
import { behaviourOf, writeTable, type Behaviour } from './behaviour.ts';
import type { S3Server } from './gofakes3.ts';
import { S3_SERVERS } from './s3-servers.ts';

// npm run test:s3: runs the store suite and an outage over other S3 servers, and writes the table
// of docs/storage.md. S3_SERVERS=rclone,ceph npm run test:s3: only these; the table is not changed.

const wanted = process.env['S3_SERVERS']?.toLowerCase().split(',');
const servers = Object.entries(S3_SERVERS).filter(([name]) => wanted?.some((word) => name.toLowerCase().includes(word)) ?? true);
const signal = AbortSignal.timeout(3_600_000);
const behaviours: Record<string, Behaviour> = {};
let buckets = 0;

async function open(server: S3Server, bucket: string): Promise<S3Store> {
  const { endpoint, region, accessKeyId, secretAccessKey } = server;
  const credentials = () => Promise.resolve({ accessKeyId, secretAccessKey });
  const store = s3({ bucket, region, endpoint, forcePathStyle: true, createBucket: true, prefix: 'a/prefix', credentials });
  await store.prepare({ signal });
  return store;
}

async function pull(registry: ServingProgram, digest: string): Promise<void> {
  const response = await fetch(`${registry.url}/v2/hub/a/b/blobs/${digest}`);
  assert.equal(response.status, 200, digest);
  assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest);
}

async function isStored(registry: ServingProgram): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    const text = await (await fetch(`${registry.admin}/metrics`)).text();
    if (/^kube_registry_upload_queue_blobs 0$/m.test(text)) return;
    await delay(100);
  }
  assert.fail('everything is stored in the end');
}

for (const [name, start] of servers) {
  describe(name, () => {
    let server: S3Server;
    before(async () => void (server = await start()));
    after(() => server[Symbol.asyncDispose]());

    storeConformance(
      name,
      async () => {
        const store = await open(server, `conformance-${buckets++}`);
        return { store, [Symbol.asyncDispose]: () => store.close() };
      },
      { overwritesAtomically: !name.startsWith('rclone') }, // it writes into the file that others read
    );

    test('promise 11: no pull fails while the server is down, and afterwards it has everything', async () => {
      await using upstream = await startScriptedUpstream();
      await using local = await temporaryDirectory();
      const { endpoint, region, accessKeyId, secretAccessKey } = server;
      const config = (directory: string) => ({
        storage: { s3: { endpoint, bucket: 'outage', region, accessKeyId, secretAccessKey, createBucket: true } },
        local: { directory },
        upstreams: { hub: { url: upstream.url } },
      });
      const digests: string[] = [];
      const load = async (registry: ServingProgram, count: number): Promise<void> => {
        const fresh = Array.from({ length: count }, () =>
          upstream.addBlob(randomBytes(`outage ${digests.length} ${Math.random()}`, 300 * 1024)),
        );
        digests.push(...fresh);
        await Promise.all(fresh.map((digest) => pull(registry, digest)));
      };
      await using registry = await startRegistry(config(local.path));
      await load(registry, 5);
      await isStored(registry);
      await server.stop();
      await load(registry, 20);
      await server.start();
      await load(registry, 5);
      await isStored(registry);
      await using other = await temporaryDirectory();
      await using second = await startRegistry(config(other.path));
      const before = upstream.blobBytes();
      for (const digest of digests) await pull(second, digest);
      assert.equal(upstream.blobBytes(), before, 'every byte comes from S3');
    });

    test('its behaviour is known', async () => {
      behaviours[name] = await behaviourOf(server);
    });
  });
}

after(async () => {
  if (wanted === undefined) await writeTable(behaviours);
});
