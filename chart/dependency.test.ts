import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { parseAllDocuments } from 'yaml';
import { parseConfig } from '../src/config/load.ts';
import { temporaryDirectory } from '../test/support/temporary.ts';
import { toolPath } from '../test/tools/tools.ts';
import { at, configOf, podOf, workloads, type Manifest } from './render.ts';

interface Dependency {
  name: string;
  version: string;
  condition?: string;
  alias?: string;
}

/** The rendered objects of another chart that depends on this one, with these values. */
async function renderPlatform(dependencies: Omit<Dependency, 'name' | 'version'>[], values: unknown): Promise<Manifest[]> {
  await using temporary = await temporaryDirectory();
  const chart = join(temporary.path, 'platform');
  await mkdir(join(chart, 'charts'), { recursive: true });
  const filter = (path: string): boolean => !path.endsWith('.ts');
  await cp(import.meta.dirname, join(chart, 'charts/kube-registry'), { recursive: true, filter });
  const all = dependencies.map((own): Dependency => ({ name: 'kube-registry', version: '>=0.0.0', ...own }));
  await writeFile(join(chart, 'Chart.yaml'), JSON.stringify({ apiVersion: 'v2', name: 'platform', version: '0.1.0', dependencies: all }));
  await writeFile(join(chart, 'values.yaml'), JSON.stringify(values));
  const args = ['template', 'p', chart, '--namespace', 'images', '--kube-version', '1.34.0'];
  const { stdout } = await promisify(execFile)(await toolPath('helm'), args, { maxBuffer: 64 * 1024 * 1024 });
  return parseAllDocuments(stdout).flatMap((document) => (document.toJSON() as Manifest | null) ?? []);
}

test('a chart that depends on this one switches it by a condition', async () => {
  const dependency = { condition: 'kube-registry.enabled' };
  assert.deepEqual(await renderPlatform([dependency], { 'kube-registry': { enabled: false } }), []);
  const manifests = await renderPlatform([dependency], { 'kube-registry': { enabled: true } });
  assert.ok(workloads(manifests).some(({ metadata }) => metadata.name === 'p-kube-registry-registry'));
});

test('two releases under aliases coexist, with separate names and configurations', async () => {
  const manifests = await renderPlatform(
    [
      { alias: 'images', condition: 'images.enabled' },
      { alias: 'mirror', condition: 'mirror.enabled' },
    ],
    { images: { enabled: true }, mirror: { enabled: true, agent: { port: 26000, adminPort: 26001 } } },
  );
  const names = manifests.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
  assert.deepEqual(names.toSorted(), [...new Set(names)].toSorted(), 'no name is listed twice');
  for (const [alias, port] of [
    ['images', 25_000],
    ['mirror', 26_000],
  ] as const) {
    const own = manifests.filter(({ metadata }) => metadata.name.startsWith(`p-${alias}`));
    assert.equal(at(configOf(own, 'webhook'), 'webhook.registryHost'), `127.0.0.1:${port}`);
    assert.doesNotThrow(() => parseConfig(configOf(own, 'registry')));
    assert.match(JSON.stringify(own.find(({ kind }) => kind === 'DaemonSet')), new RegExp(`P_${alias.toUpperCase()}_SERVICE_HOST`));
  }
});

test('pull secrets that the platform has for all its charts are taken as objects and as bare names', async () => {
  const global = { imagePullSecrets: ['one', { name: 'two' }], imageRegistry: 'mirror.example', other: { of: 'the platform' } };
  const manifests = await renderPlatform([{}], { global });
  for (const workload of workloads(manifests)) {
    assert.deepEqual(podOf(workload)['imagePullSecrets'], [{ name: 'one' }, { name: 'two' }], workload.metadata.name);
  }
});
