import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';

/** Who may import whom. A room may always import itself and oci; the command room imports any. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  oci: [],
  files: [],
  config: ['oci'],
  store: ['oci', 'files', 'telemetry'],
  registry: ['oci', 'files', 'store', 'telemetry'],
  upkeep: ['oci', 'store', 'telemetry'],
  server: ['oci', 'telemetry'],
  webhook: ['oci', 'config', 'server', 'telemetry'],
  agent: ['oci', 'files', 'config', 'telemetry'],
  clash: ['oci', 'files', 'config', 'server', 'telemetry'],
  telemetry: ['oci'],
  commands: ['oci', 'files', 'config', 'store', 'registry', 'upkeep', 'server', 'webhook', 'agent', 'clash', 'telemetry'],
};
/** They make a program of the rooms. */
const PROGRAM = ['src/main.ts', 'src/program.ts'];
/** The only rooms that may know HTTP as a server. */
const HTTP_STATUS_ROOMS = ['server', 'webhook', 'clash'];

const root = join(import.meta.dirname, '..');
const sources = globSync('src/**/*.ts', { cwd: root }).filter((file) => !/\.(?:test|conformance)\.ts$/.test(file));
const IMPORT = /(?:from|import)\s*\(?\s*'(\.{1,2}\/[^']+)'/g;

function roomOf(file: string): string {
  return file.split('/')[1] ?? '';
}

test('every room imports only the rooms that the table allows', () => {
  assert.ok(sources.length > 10, 'the sources were found');
  const breaches: string[] = [];
  for (const file of sources.filter((file) => !PROGRAM.includes(file))) {
    for (const [, target = ''] of readFileSync(join(root, file), 'utf8').matchAll(IMPORT)) {
      const from = roomOf(file);
      const to = roomOf(relative(root, join(root, dirname(file), target)));
      if (from !== to && !MAY_IMPORT[from]?.includes(to)) breaches.push(`${file} imports ${target}`);
    }
  }
  assert.deepEqual(breaches, []);
});

test('only main.ts and program.ts touch the process', () => {
  const breaches = sources.filter(
    (file) =>
      !PROGRAM.includes(file) && /\bprocess\.(?:env|argv|exit|on|once|stdout|stderr)\b/.test(readFileSync(join(root, file), 'utf8')),
  );
  assert.deepEqual(breaches, []);
});

test('only server rooms write HTTP status lines', () => {
  const breaches = sources.filter(
    (file) => !HTTP_STATUS_ROOMS.includes(roomOf(file)) && /\.writeHead\(|statusCode = /.test(readFileSync(join(root, file), 'utf8')),
  );
  assert.deepEqual(breaches, []);
});
