import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { startContainerd } from './support/containerd.ts';
import { startDistribution } from './support/distribution.ts';
import { makeImage, pushImage } from './support/image.ts';
import { startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { startVersitygw } from './support/versitygw.ts';
import { debianTool, toolPath } from './tools/tools.ts';

const run = promisify(execFile);

for (const kind of ['filesystem', 's3'] as const) {
  test(`promise 7: crane, skopeo and containerd get a multi-platform image byte for byte, with upstream and without, kept in ${kind}`, async () => {
    await using upstream = await startDistribution();
    await using temporary = await temporaryDirectory();
    await using s3 = kind === 's3' ? await startVersitygw() : undefined;
    const image = makeImage({ layers: [64 * 1024, 5 * 1024 * 1024], gzip: true });
    await pushImage(upstream.url, 'library/demo', '1', image);
    const { endpoint, bucket, region, accessKeyId, secretAccessKey } = s3 ?? {};
    await using registry = await startRegistry({
      storage:
        s3 === undefined
          ? { filesystem: { directory: join(temporary.path, 'data') } }
          : { s3: { endpoint, bucket, region, accessKeyId, secretAccessKey } },
      local: { directory: join(temporary.path, 'local') },
      upstreams: { dockerhub: { url: upstream.url } },
    });
    const name = `${registry.host}/dockerhub/library/demo:1`;
    const [crane, skopeo] = await Promise.all([toolPath('crane'), debianTool('skopeo')]);

    async function pullWithAll(round: string): Promise<void> {
      const layout = join(temporary.path, `crane-${round}`);
      await run(crane, ['pull', '--insecure', '--format=oci', name, layout]);
      const copied = join(temporary.path, `skopeo-${round}`);
      await run(skopeo, ['copy', '--all', '--src-tls-verify=false', `docker://${name}`, `oci:${copied}:1`]);
      for (const platform of image.platforms) {
        for (const { digest, bytes } of [platform.manifest, platform.config, ...platform.layers]) {
          for (const directory of [layout, copied]) {
            assert.ok(bytes.equals(await readFile(join(directory, 'blobs', digest.replace(':', '/')))), `${digest} in ${directory}`);
          }
        }
      }
      for (const release of ['debian', '2.4'] as const) {
        await using containerd = await startContainerd({ release });
        await containerd.ctr('images', 'pull', '--plain-http', '--all-platforms', name);
        assert.match(await containerd.ctr('images', 'ls'), new RegExp(image.root.digest));
      }
    }

    await pullWithAll('first');
    const asked = upstream.requests().filter(({ method, path }) => method === 'GET' && path.includes('/blobs/'));
    assert.equal(new Set(asked.map(({ path }) => path)).size, asked.length, 'each blob is fetched once for all clients');
    await upstream.stop();
    await pullWithAll('second');
  });
}
