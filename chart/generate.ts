// Generates values.schema.json, defaults.json and the table of README.md from values.yaml and the
// program's configuration schema, rewriting.json from the webhook's rules, and the dashboard. With
// --check, only checks whether they are up to date.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { dashboard } from './dashboard.ts';
import { rewritingFacts } from './rewriting.ts';
import { readValues, type Value } from './values.ts';
import { valuesSchema } from './values-schema.ts';

const directory = import.meta.dirname;
const START = '<!-- values: made by npm run generate -->';
const END = '<!-- /values -->';

function table(values: readonly Value[]): string {
  const rows = values
    .filter((value) => value.description !== '')
    .map((value) => `| \`${value.path}\` | ${preset(value)} | ${value.description} |`);
  return ['| key | default | description |', '|---|---|---|', ...rows].join('\n');
}

function preset(value: Value): string {
  if (value.preset === null || value.preset === undefined || value.preset === '') return '';
  return `\`${JSON.stringify(value.preset).replaceAll('|', '\\|')}\``;
}

function readme(values: readonly Value[]): string {
  const content = readFileSync(join(directory, 'README.md'), 'utf8');
  const [before, rest = ''] = content.split(START);
  const [, after = ''] = rest.split(END);
  return `${before}${START}\n${table(values)}\n${END}${after}`;
}

/** The value of a key that is null or empty: templates cannot read values.yaml, and to helm null
 *  means "no default". */
function defaults(value: Value): unknown {
  if (value.children.length === 0) return value.preset;
  const keys = value.children.filter(({ preset }) => preset !== null);
  return Object.fromEntries(keys.map((child) => [child.path.slice(child.path.lastIndexOf('.') + 1), defaults(child)]));
}

/** Each generated file with its expected content. */
export function generated(): Record<string, string> {
  const tree = readValues(readFileSync(join(directory, 'values.yaml'), 'utf8'));
  return {
    'values.schema.json': `${JSON.stringify(valuesSchema(tree.root), null, 1)}\n`,
    'defaults.json': `${JSON.stringify(defaults(tree.root), null, 1)}\n`,
    'rewriting.json': `${JSON.stringify(rewritingFacts(), null, 1)}\n`,
    'README.md': readme(tree.leaves),
    'dashboards/kube-registry.json': `${JSON.stringify(dashboard(), null, 1)}\n`,
  };
}

if (import.meta.main) {
  const check = process.argv.includes('--check');
  for (const [file, content] of Object.entries(generated())) {
    const path = join(directory, file);
    if (!check) writeFileSync(path, content);
    else if (readFileSync(path, 'utf8') !== content) {
      process.stderr.write(`chart/${file} is not up to date: npm run generate\n`);
      process.exitCode = 1;
    }
  }
}
