import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { makeImage } from './support/image.ts';
import { runMeasured } from './support/measured.ts';
import { freeAddresses, PROGRAM, startRegistry } from './support/program.ts';
import { startScriptedUpstream } from './support/scripted-upstream.ts';
import { temporaryDirectory } from './support/temporary.ts';
import { debianTool } from './tools/tools.ts';

// npm run archive-figures: how fast an image is exported and imported, beside `skopeo copy` to and from an oci-archive, in turns.

const { values } = parseArgs({ options: { mebibytes: { type: 'string' }, turns: { type: 'string' } } });
const MiB = 2 ** 20;
const layer = (Number(values.mebibytes ?? 2048) / 4) * MiB;
const turns = Number(values.turns ?? 3);
const SHARE = 0.9;
const MAX_MEMORY = 150e6;
const [NODE, ...MAIN] = PROGRAM;

/** Runs a command that has to succeed. @returns seconds, and its peak memory in bytes */
async function measure(command: string, args: readonly string[]): Promise<{ seconds: number; memory: number }> {
  const { code, stderr, seconds, peak } = await runMeasured(command, args);
  assert.equal(code, 0, stderr);
  return { seconds, memory: peak };
}

await using upstream = await startScriptedUpstream();
await using folder = await temporaryDirectory();
const image = makeImage({ seed: 'figures', architectures: ['amd64'], layers: [layer, layer, layer, layer] });
upstream.add('apps/large', '1', image);
const at = (name: string): string => join(folder.path, name);

async function configure(name: string): Promise<Record<string, unknown>> {
  const registry = {
    ...(await freeAddresses()),
    storage: { filesystem: { directory: at(name) } },
    upstreams: { hub: { url: upstream.url, hosts: ['hub.example'] } },
  };
  await writeFile(at(`${name}.yaml`), JSON.stringify({ registry }));
  return registry;
}

const skopeo = await debianTool('skopeo');
const copy = ['--insecure-policy', 'copy', '--quiet', '--preserve-digests', '--src-tls-verify=false'];
await using registry = await startRegistry(await configure('connected'));
await measure(NODE, [...MAIN, 'cache', 'warm', 'hub.example/apps/large:1', '--config', at('connected.yaml')]);

const seconds: Record<'export' | 'import', { own: number[]; other: number[] }> = {
  export: { own: [], other: [] },
  import: { own: [], other: [] },
};
const memory = { export: 0, import: 0 };
for (let turn = 0; turn < turns; turn++) {
  const [own, other] = [at('own.tar'), at('skopeo.tar')];
  const exported = await measure(NODE, [
    ...MAIN,
    'cache',
    'export',
    'hub.example/apps/large:1',
    '--output',
    own,
    '--config',
    at('connected.yaml'),
  ]);
  const copied = await measure(skopeo, [
    ...copy,
    `docker://${registry.host}/hub/apps/large:1`,
    `oci-archive:${other}:hub.example/apps/large:1`,
  ]);
  await (await startRegistry(await configure('imported')))[Symbol.asyncDispose](); // makes the directory
  const imported = await measure(NODE, [...MAIN, 'cache', 'import', other, '--config', at('imported.yaml')]);
  const read = await measure(skopeo, [
    '--insecure-policy',
    'copy',
    '--quiet',
    '--preserve-digests',
    `oci-archive:${own}`,
    `oci:${at('layout')}:1`,
  ]);
  seconds.export.own.push(exported.seconds);
  seconds.export.other.push(copied.seconds);
  seconds.import.own.push(imported.seconds);
  seconds.import.other.push(read.seconds);
  memory.export = Math.max(memory.export, exported.memory);
  memory.import = Math.max(memory.import, imported.memory);
  for (const name of ['own.tar', 'skopeo.tar', 'imported', 'layout']) await rm(at(name), { recursive: true });
}

function print(what: string, found: number, isHeld: boolean): void {
  if (!isHeld) process.exitCode = 1;
  process.stdout.write(`${isHeld ? 'held' : 'NOT HELD'}  ${what}: ${found.toFixed(2)}\n`);
}

const median = (list: readonly number[]): number => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)] ?? 0;
for (const [what, { own, other }] of Object.entries(seconds)) {
  const share = median(other) / median(own);
  process.stdout.write(
    `${what}: ${own.map((one) => one.toFixed(1)).join(', ')} s; skopeo: ${other.map((one) => one.toFixed(1)).join(', ')} s\n`,
  );
  print(`${what}, speed as a share of skopeo's (≥ ${SHARE})`, share, share >= SHARE);
}
for (const [what, most] of Object.entries(memory)) print(`${what}, memory in MB (≤ ${MAX_MEMORY / 1e6})`, most / 1e6, most <= MAX_MEMORY);
