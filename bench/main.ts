// npm run bench [-- ROW…] [--json] [--turns N] [--write] [--beside CHECKOUT]: the program of another
// checkout of this project takes part too.
import { availableParallelism, cpus, totalmem } from 'node:os';
import { parseArgs } from 'node:util';
import { toolPath } from '../test/tools/tools.ts';
import { writeDocuments } from './document.ts';
import { renderTable } from './report.ts';
import type { RowResult } from './row.ts';
import { rows } from './rows/rows.ts';
import { runRow } from './turns.ts';

const TURNS = 3;

const { values: options, positionals: names } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    turns: { type: 'string' },
    beside: { type: 'string' },
  },
});
const turns = options.turns === undefined ? undefined : Number(options.turns);
if (turns !== undefined && !(Number.isInteger(turns) && turns > 0)) throw new Error('--turns wants a number above 0');
for (const name of names) {
  if (!rows.some((row) => row.name === name)) throw new Error(`no row ${name}; there are ${rows.map((row) => row.name).join(', ')}`);
}

await toolPath('load'); // built before anything is measured
const results: RowResult[] = [];
for (const row of rows.filter(({ name }) => names.length === 0 || names.includes(name))) {
  process.stderr.write(`${row.name} `);
  try {
    const onTurn = (): void => void process.stderr.write('.');
    results.push(await runRow(row, { turns: turns ?? row.turns ?? TURNS, beside: options.beside, onTurn }));
    process.stderr.write('\n');
  } catch (error) {
    process.stderr.write(`\n${row.name} does not work: ${(error as Error).stack}\n`);
    process.exitCode = 1;
  }
}
if (options.write) writeDocuments(results, machine());
process.stdout.write(options.json ? `${JSON.stringify(results, undefined, 2)}\n` : renderTable(results));

function machine(): string {
  return `${cpus()[0]?.model ?? ''}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.versions.node}`;
}
