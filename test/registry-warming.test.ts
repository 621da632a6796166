import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { startDistribution } from './support/distribution.ts';
import { makeImage, pushImage } from './support/image.ts';
import { freeAddresses, PROGRAM, startRegistry } from './support/program.ts';
import { signatureOf } from './support/signature.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';
import { toolPath } from './tools/tools.ts';

const run = promisify(execFile);
const [NODE, ...MAIN] = PROGRAM;

test('a tag that has moved, and its signature, are fetched by the schedule before anybody asks', async () => {
  const oras = await toolPath('oras');
  await using upstream = await startDistribution();
  await using folder = await temporaryDirectory();
  const [before, now] = ['before', 'now'].map((seed) => makeImage({ seed, layers: [20_000] }));
  assert.ok(before !== undefined && now !== undefined);
  await pushImage(upstream.url, 'apps/one', '1', before);
  const own = {
    ...(await freeAddresses()),
    storage: { filesystem: { directory: join(folder.path, 'data') } },
    cache: { tagTtl: '1s' },
    upstreams: { hub: { url: upstream.url, hosts: ['hub.example'] } },
    warm: { images: ['hub.example/apps/one:1', 'hub.example/apps/absent:1'], platforms: ['linux/arm64'], schedule: '* * * * *' },
  };
  const config = join(folder.path, 'config.yaml');
  await writeFile(config, JSON.stringify({ registry: own }));
  await using registry = await startRegistry(own);
  const base = `${registry.url}/v2/hub/apps/one`;
  const pulled = await fetch(`${base}/manifests/1`);
  assert.equal(pulled.headers.get('docker-content-digest'), before.root.digest);
  await pushImage(upstream.url, 'apps/one', '1', now);
  const { signature, attach, verify } = signatureOf(now.root.bytes);
  await attach(oras, `${upstream.host}/apps/one@${now.root.digest}`, folder.path);
  const count = (wanted: string): number => registry.log().filter(({ event }) => event === wanted).length;
  const begun = count('warming-started');
  await until(() => count('warming-finished') > begun, 'a run that began after the push has finished');
  await upstream.stop();

  const arm = now.platforms.find(({ architecture }) => architecture === 'arm64') ?? assert.fail();
  const paths = ['manifests/1', `manifests/${arm.manifest.digest}`, ...[arm.config, ...arm.layers].map(({ digest }) => `blobs/${digest}`)];
  for (const path of paths) {
    const response = await fetch(`${base}/${path}`);
    assert.equal(response.status, 200, path);
    if (path === 'manifests/1') assert.equal(response.headers.get('docker-content-digest'), now.root.digest);
    await response.arrayBuffer();
  }
  assert.deepEqual(await verify(oras, `${registry.host}/hub/apps/one@${now.root.digest}`, folder.path), signature);

  const { stdout } = await run(NODE, [...MAIN, 'cache', 'stat', '--json', '--config', config]);
  const { warmed } = JSON.parse(stdout) as { warmed: { warm: number; failed: number } | null };
  assert.deepEqual([warmed?.warm, warmed?.failed], [1, 1]);
  const metrics = await (await fetch(`${registry.admin}/metrics`)).text();
  assert.match(metrics, /^kube_registry_warmed_images_total\{outcome="warm"\} [1-9]/m);
});
