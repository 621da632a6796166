import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { makeImage } from './support/image.ts';
import { freeAddresses, PROGRAM, startRegistry } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { until } from './support/until.ts';

const run = promisify(execFile);
const [NODE, ...MAIN] = PROGRAM;

test('promise 8: with onDeleted: serve, an image that upstream deletes stays pullable, and log, metric and cache ls say so', async () => {
  await using upstream = await startScriptedUpstream();
  await using folder = await temporaryDirectory();
  const image = makeImage({ seed: 'gone', layers: [50_000] });
  for (const name of ['kept', 'forgotten']) upstream.add(`apps/${name}`, '1', image);
  const own = {
    ...(await freeAddresses()),
    storage: { filesystem: { directory: join(folder.path, 'data') } },
    upstreams: {
      kept: { url: upstream.url, hosts: ['kept.example'], onDeleted: 'serve', tagTtl: '1s' },
      forgotten: { url: upstream.url, hosts: ['forgotten.example'], tagTtl: '1s' },
    },
  };
  const config = join(folder.path, 'config.yaml');
  await writeFile(config, JSON.stringify({ registry: own }));
  const goneOf = async (admin: string) => (await (await fetch(`${admin}/metrics`)).text()).match(/^kube_registry_gone_upstream.*$/gm);
  await using registry = await startRegistry(own);
  const pull = async (upstreamName: string): Promise<number[]> => {
    const base = `${registry.url}/v2/${upstreamName}/apps/${upstreamName}`;
    const paths = [
      'manifests/1',
      ...image.platforms.flatMap(({ manifest, layers }) => [
        `manifests/${manifest.digest}`,
        ...layers.map(({ digest }) => `blobs/${digest}`),
      ]),
    ];
    const statuses = [];
    for (const path of paths) {
      const response = await fetch(`${base}/${path}`);
      await response.arrayBuffer();
      statuses.push(response.status);
    }
    return statuses;
  };
  for (const name of ['kept', 'forgotten']) assert.ok((await pull(name)).every((status) => status === 200));
  upstream.behave = () => ({ status: 404 });
  await delay(1500);
  assert.ok(
    (await pull('kept')).every((status) => status === 200),
    'the whole image is served',
  );
  assert.equal((await pull('forgotten'))[0], 404, 'the default forgets');
  assert.ok(registry.log().some(({ event, repository, tag }) => event === 'tag-gone' && repository === 'kept/apps/kept' && tag === '1'));
  assert.equal((await goneOf(registry.admin))?.[0], 'kube_registry_gone_upstream{upstream="kept"} 1');
  let lines: { repository: string; gone: { tag: string; since: string }[] }[] = [];
  const isListed = async (): Promise<boolean> => {
    const { stdout } = await run(NODE, [...MAIN, 'cache', 'ls', '--gone', '--json', '--config', config]);
    lines = JSON.parse(stdout) as typeof lines;
    return lines.length > 0;
  };
  await until(isListed, 'the record, which is written in the background, is listed');
  assert.deepEqual(
    lines.map(({ repository, gone }) => [repository, gone.map(({ tag }) => tag)]),
    [['kept/apps/kept', ['1']]],
  );

  await registry.stop('SIGTERM');
  await using next = await startRegistry(own);
  await until(async () => (await goneOf(next.admin))?.[0] === 'kube_registry_gone_upstream{upstream="kept"} 1', 'a restart counts it too');
  upstream.behave = () => ({});
  const isBack = async (): Promise<boolean> => {
    await (await fetch(`${next.url}/v2/kept/apps/kept/manifests/1`)).arrayBuffer();
    return (await goneOf(next.admin))?.[0] === 'kube_registry_gone_upstream{upstream="kept"} 0';
  };
  await until(isBack, 'upstream is asked again, and has the tag');
});
