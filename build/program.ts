import { globSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { BuildOptions, Metafile } from 'esbuild';
import { namedExports } from './named-exports.ts';
import { removeOthers, replaceFile } from './output.ts';

// Bundles the program and its packages into dist/program, from where the image and `npm start` run
// it (docs/decisions/bundle.md).

const root = join(import.meta.dirname, '..');
const target = join(root, 'dist/program');
const MAIN = 'main.mjs';
/** Files and directories whose changes change the bundle. */
const SOURCES = ['src', 'src/**', 'build/*', 'package.json', 'package-lock.json'];

/** The threads of the program: Workers are started by the names of their files. */
const WORKERS = 'src/**/*-worker.{ts,mjs}';

/** Packages with machine code, which stay in node_modules. */
export const NATIVE = ['koffi', '@node-rs/bcrypt'];

/** What CommonJS packages within the bundle require: modules of Node. */
const REQUIRE = `import { createRequire as bundleRequire } from 'node:module'; const require = bundleRequire(import.meta.url);`;

/** How modules become files that Node runs. */
export const BUNDLE = {
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node26',
  outExtension: { '.js': '.mjs' },
  // The files that Node itself would load.
  conditions: [],
  mainFields: ['main'],
  external: NATIVE,
  banner: { js: REQUIRE },
  plugins: [namedExports],
} satisfies BuildOptions;

/** Builds the program unless all of its sources are older than the last build.
 *  @returns the path of the program's main file
 *  @throws Error: a source file is wrong */
export async function builtProgram(): Promise<string> {
  const built = statSync(join(target, MAIN), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const isCurrent = globSync(SOURCES, { cwd: root }).every((path) => statSync(join(root, path)).mtimeMs < built);
  return isCurrent ? join(target, MAIN) : buildProgram();
}

/** @returns the path of the program's main file
 *  @throws Error: a source file is wrong */
export async function buildProgram(): Promise<string> {
  const { build } = await import('esbuild');
  const { outputFiles, metafile } = await build({
    entryPoints: [join(root, 'src/main.ts'), ...globSync(join(root, WORKERS))],
    entryNames: '[name]',
    chunkNames: '[name]-[hash]',
    outdir: target,
    ...BUNDLE,
    legalComments: 'none',
    write: false,
    metafile: true,
    logLevel: 'warning',
    absWorkingDir: root,
  });
  const files = new Map(outputFiles.map(({ path, contents }) => [basename(path), contents]));
  files.set('licenses.txt', Buffer.from(await licenses(metafile)));
  // The main file names all others, so it is the last one to be replaced.
  for (const [name, content] of [...files].toSorted(([one], [other]) => Number(one === MAIN) - Number(other === MAIN)))
    await replaceFile(join(target, name), content, name === MAIN ? 0o755 : 0o644);
  await removeOthers(target, new Set(files.keys()));
  return join(target, MAIN);
}

/** The licenses of the packages within the bundle. */
async function licenses({ inputs }: Metafile): Promise<string> {
  const packages = new Set(
    Object.keys(inputs).flatMap((path) => /^(?:node_modules\/.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0] ?? []),
  );
  const texts = await Promise.all([...packages].sort().map(licenseOf));
  return texts.join(`\n${'-'.repeat(80)}\n\n`);
}

async function licenseOf(directory: string): Promise<string> {
  const { name, version, license } = JSON.parse(await readFile(join(root, directory, 'package.json'), 'utf8')) as Record<string, unknown>;
  const files = globSync('{LICEN[CS]E,NOTICE,license,licence}*', { cwd: join(root, directory) }).sort();
  const texts = await Promise.all(files.map((file) => readFile(join(root, directory, file), 'utf8')));
  return [`${String(name)} ${String(version)} (${String(license)})\n`, ...texts].join('\n');
}
