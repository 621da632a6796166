import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { randomBytes, sha256 } from './support/image.ts';
import { startRegistry, type ServingProgram } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { smallVolume } from './support/small-volume.ts';
import { startVersitygw } from './support/versitygw.ts';

const MiB = 2 ** 20;
const root = process.getuid?.() === 0 ? false : 'a small volume is made with mount: run it as root';

async function pull(registry: ServingProgram, digest: string): Promise<void> {
  const response = await fetch(`${registry.url}/v2/hub/a/b/blobs/${digest}`);
  assert.equal(response.status, 200);
  assert.equal(sha256(Buffer.from(await response.arrayBuffer())), digest);
}

// Each has servers of its own, and mostly waits.
describe('a full disk', { concurrency: 2 }, () => {
  for (const kind of ['s3', 'filesystem'] as const) {
    test(`promise 14: ${kind}: pulls succeed with a full disk, while running and at start`, { skip: root }, async () => {
      await using upstream = await startScriptedUpstream();
      await using s3 = await startVersitygw();
      await using volume = await smallVolume(24);
      const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3;
      const configuration = {
        storage:
          kind === 's3'
            ? { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } }
            : { filesystem: { directory: join(volume.path, 'data') } },
        local: { directory: join(volume.path, 'local'), maxSize: '1GiB' }, // more than there is
        upstreams: { hub: { url: upstream.url } },
      };
      const blobs = Array.from({ length: 6 }, (_, index) => upstream.addBlob(randomBytes(`disk ${index}`, 10 * MiB)));
      {
        await using registry = await startRegistry(configuration);
        await Promise.all(blobs.map((digest) => pull(registry, digest))); // 60 MiB at once over 24
        await volume.fill();
        for (const digest of blobs) await pull(registry, digest);
        assert.equal((await fetch(`${registry.admin}/readyz`)).status, 200);
        await registry.stop('SIGKILL'); // after SIGTERM it would wait for room for what is not stored yet
      }
      await volume.fill();
      assert.equal(await volume.room(), 0);
      await using registry = await startRegistry(configuration);
      for (const digest of blobs) await pull(registry, digest);
      await registry.stop('SIGKILL');
    });
  }
});
