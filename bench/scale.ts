// npm run bench:scale: checks that with 100,000 stored blobs a start takes no longer, and a hit
// costs no more, than with few. Exit code 1: it does.
import { renderTable } from './report.ts';
import type { RowResult } from './row.ts';
import { scaleRows } from './rows/scale.ts';
import { runRow } from './turns.ts';

const results: RowResult[] = [];
for (const row of scaleRows) {
  process.stderr.write(`${row.name} `);
  const onTurn = (): void => void process.stderr.write('.');
  results.push(await runRow(row, { turns: row.turns ?? 3, onTurn }));
  process.stderr.write('\n');
}
process.stdout.write(renderTable(results));
if (results.some(({ targets }) => targets.some(({ reached }) => !reached))) process.exitCode = 1;
