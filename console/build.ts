import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import type { Metafile } from 'esbuild';
import { brotliCompress, constants, gzip } from 'node:zlib';
import { removeOthers, replaceFile } from '../build/output.ts';

// Bundles the page of the console into dist/console, from where the registry serves it. The names of
// its files contain hashes, so that browsers can cache them forever.

const source = import.meta.dirname;
const target = join(source, '../dist/console');
const assets = join(target, 'assets');

/** Bundles the page. Concurrent builds do not disturb each other: files with the same content have
 *  the same name, and index.html, which refers to them, is replaced last.
 *  @throws Error: a source file is wrong */
export async function buildConsole(): Promise<void> {
  const { build } = await import('esbuild');
  const { metafile } = await build({
    entryPoints: { console: join(source, 'main.tsx'), style: join(source, 'styles/style.css'), icon: join(source, 'icon.svg') },
    entryNames: '[name]-[hash]',
    chunkNames: '[name]-[hash]',
    splitting: true,
    outdir: assets,
    bundle: true,
    minify: true,
    format: 'esm',
    target: ['chrome120', 'firefox121', 'safari17.5'],
    jsx: 'automatic',
    jsxImportSource: 'preact',
    loader: { '.svg': 'copy' },
    legalComments: 'linked',
    metafile: true,
    logLevel: 'warning',
    tsconfig: join(source, 'tsconfig.json'),
    absWorkingDir: join(source, '..'),
  });
  const written = Object.keys(metafile.outputs).map((path) => basename(path));
  await compress(written);
  await writeIndex(written, metafile);
  await removeOthers(assets, new Set(written.flatMap((file) => [file, `${file}.gz`, `${file}.br`])));
}

/** Compressed copies next to each file, so that no request waits for compression. */
async function compress(files: readonly string[]): Promise<void> {
  for (const file of files) {
    const bytes = await readFile(join(assets, file));
    await replaceFile(join(assets, `${file}.gz`), await promisify(gzip)(bytes, { level: 9 }));
    const quality = { params: { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY } };
    await replaceFile(join(assets, `${file}.br`), await promisify(brotliCompress)(bytes, quality));
  }
}

/** The script's static imports are loaded in parallel with it, not after it. */
async function writeIndex(files: readonly string[], { outputs }: Metafile): Promise<void> {
  const template = await readFile(join(source, 'index.html'), 'utf8');
  const find = (name: RegExp): string => `/assets/${files.find((file) => name.test(file)) ?? ''}`;
  const names = { icon: find(/^icon-.*\.svg$/), style: find(/^style-.*\.css$/), script: find(/^console-.*\.js$/) };
  const imports = Object.entries(outputs).find(([path]) => names.script.endsWith(basename(path)))?.[1].imports ?? [];
  const chunks = imports.filter(({ kind }) => kind === 'import-statement').map(({ path }) => `/assets/${basename(path)}`);
  const preloads = chunks.map((path) => `<link rel="modulepreload" href="${path}" />`).join('\n    ');
  const page = template
    .replaceAll(/\{(icon|style|script)\}/g, (_, key: keyof typeof names) => names[key])
    .replace('<!-- preloads -->', preloads);
  await replaceFile(join(target, 'index.html'), page);
}
