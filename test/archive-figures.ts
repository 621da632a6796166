import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { makeImage } from './support/image.ts';
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

/** Runs a command to its end. @returns seconds, and the most memory that it has had, in bytes */
async function measure(command: string, args: readonly string[]): Promise<{ seconds: number; memory: number }> {
  const started = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  const ended = once(child, 'close') as Promise<[number]>;
  let isOver = false;
  void ended.then(() => (isOver = true));
  let memory = 0;
  while (!isOver) {
    const status = await readFile(`/proc/${child.pid}/status`, 'utf8').catch(() => '');
    memory = Math.max(memory, 1024 * Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0));
    await Promise.race([delay(50), ended]);
  }
  const seconds = (performance.now() - started) / 1000;
  assert.equal((await ended)[0], 0, said);
  return { seconds, memory };
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
let memory = 0;
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
  memory = Math.max(memory, exported.memory, imported.memory);
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
print(`memory in MB (≤ ${MAX_MEMORY / 1e6})`, memory / 1e6, memory <= MAX_MEMORY);
