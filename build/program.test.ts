import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import 'reflect-metadata'; // @peculiar/x509 wants it first
import { temporaryDirectory } from '../test/support/temporary.ts';
import { BUNDLE, builtProgram, NATIVE } from './program.ts';

const root = join(import.meta.dirname, '..');
const sources = globSync('src/**/*.ts', { cwd: root, exclude: ['**/*.test.ts'] });

/** An optional package, which an error message asks for. */
const IN_MESSAGES = '@aws-sdk/signature-v4-crt';

/** Packages that the program loads only when they are needed. */
function lazyPackages(): string[] {
  const all = sources.flatMap((file) => [...readFileSync(join(root, file), 'utf8').matchAll(/import\('([^.'][^']*)'\)/g)]);
  return [...new Set(all.map(([, name = '']) => name))].filter((name) => !name.startsWith('node:') && !NATIVE.includes(name));
}

test('a package that is loaded late has the same exports in the bundle as in Node', async () => {
  const packages = lazyPackages();
  assert.ok(packages.includes('undici') && packages.length > 5, packages.join(' '));
  await using directory = await temporaryDirectory();
  const outfile = join(directory.path, 'names.mjs');
  const entries = packages.map((name) => `${JSON.stringify(name)}: Object.keys(await import(${JSON.stringify(name)}))`);
  await build({
    stdin: { contents: `import 'reflect-metadata'; export const names = { ${entries.join(', ')} };`, resolveDir: root },
    outdir: directory.path,
    entryNames: 'names',
    ...BUNDLE,
    logLevel: 'silent',
  });
  const { names } = (await import(outfile)) as { names: Record<string, string[]> };
  for (const name of packages) {
    const inNode = Object.keys((await import(name)) as object).filter((one) => one !== 'module.exports' && one !== '__esModule');
    const inBundle = new Set(names[name]);
    assert.deepEqual(
      inNode.filter((one) => !inBundle.has(one)),
      [],
      name,
    );
  }
});

test('the main file of the bundle can be executed: the image names it as a command', async () => {
  const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env['PATH'] ?? ''}` };
  const { stdout } = await promisify(execFile)(await builtProgram(), ['--version'], { env });
  assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
});

test('the bundle needs no package but those with machine code, and holds the licenses of all others', async () => {
  const directory = dirname(await builtProgram());
  const files = globSync('*.mjs', { cwd: directory });
  const imported = files.flatMap((file) => {
    const text = readFileSync(join(directory, file), 'utf8');
    return [...text.matchAll(/^import (?:.* from )?"([^"./][^"]*)";$|\b(?:import|require)\("([^"./][^"]*)"\)/gm)];
  });
  const packages = new Set(imported.map(([, name, other]) => name ?? other ?? ''));
  for (const name of NATIVE) assert.ok(packages.has(name), name);
  const known = new Set([...builtinModules, ...NATIVE, IN_MESSAGES]);
  const others = [...packages].filter((name) => !name.startsWith('node:') && !known.has(name));
  assert.deepEqual(others, []);
  const licenses = readFileSync(join(directory, 'licenses.txt'), 'utf8');
  for (const name of ['commander', 'undici', '@aws-sdk/client-s3', 'pino'])
    assert.match(licenses, new RegExp(`^${name} \\d.*\\(.+\\)$`, 'm'));
});
