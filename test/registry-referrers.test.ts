import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { startDistribution } from './support/distribution.ts';
import { makeImage, pushImage } from './support/image.ts';
import { freeAddresses, startRegistry } from './support/program.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { toolPath } from './tools/tools.ts';

const run = promisify(execFile);

test('promise 21: oras discovers and pulls the signature of a warm image while upstream is stopped', async () => {
  const oras = await toolPath('oras');
  await using upstream = await startDistribution();
  await using folder = await temporaryDirectory();
  const image = makeImage({ seed: 'signed', layers: [10_000] });
  await pushImage(upstream.url, 'apps/signed', '1', image);
  await writeFile(join(folder.path, 'signature'), 'signed by the test');
  const artifact = 'signature:application/vnd.example.signature';
  const subject = `apps/signed@${image.root.digest}`;
  await run(
    oras,
    ['attach', '--plain-http', '--artifact-type', 'application/vnd.example.signature', `${upstream.host}/${subject}`, artifact],
    {
      cwd: folder.path,
    },
  );
  const own = {
    ...(await freeAddresses()),
    storage: { filesystem: { directory: join(folder.path, 'data') } },
    cache: { tagTtl: '1s' },
    upstreams: { hub: { url: upstream.url, hosts: ['hub.example'] } },
  };

  async function verify(host: string, name: string): Promise<void> {
    const discovered = await run(oras, ['discover', '--plain-http', '--format', 'json', `${host}/hub/${subject}`]);
    const { referrers } = JSON.parse(discovered.stdout) as { referrers?: { digest: string; artifactType: string }[] };
    const [found] = referrers ?? [];
    assert.equal(found?.artifactType, 'application/vnd.example.signature');
    const target = join(folder.path, name);
    await mkdir(target);
    await run(oras, ['pull', '--plain-http', '--output', target, `${host}/hub/apps/signed@${found.digest}`]);
    assert.equal(await readFile(join(target, 'signature'), 'utf8'), 'signed by the test');
    const other = await run(oras, [
      'discover',
      '--plain-http',
      '--format',
      'json',
      '--artifact-type',
      'application/other',
      `${host}/hub/${subject}`,
    ]);
    assert.doesNotMatch(other.stdout, /vnd\.example\.signature/);
  }

  {
    await using registry = await startRegistry(own);
    await verify(registry.host, 'warm');
  }
  await upstream.stop();
  await using registry = await startRegistry(own);
  await delay(1500);
  await verify(registry.host, 'stopped');
  assert.ok(registry.log().some(({ event }) => event === 'referrers-stale'));
});
