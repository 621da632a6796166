import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parse } from 'yaml';

const directory = join(import.meta.dirname, '../docs/examples');

/** The values files of the docs, and the default values. */
export function examples(): { file: string; path: string; values: unknown }[] {
  const files = globSync('*.yaml', { cwd: directory }).map((file) => join(directory, file));
  return [
    { file: 'no values at all', path: join(import.meta.dirname, 'values.yaml'), values: {} },
    ...files.map((path) => ({ file: basename(path), path, values: parse(readFileSync(path, 'utf8')) as unknown })),
  ];
}
