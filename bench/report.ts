import type { ContestantResult, RowResult, TargetResult, Unit } from './row.ts';

/** Renders results for a terminal. */
export function renderTable(results: readonly RowResult[]): string {
  const lines = results.flatMap(({ title, unit, contestants, targets }) => [
    title.en,
    ...align([['', 'median', 'best', 'CPU'], ...contestants.map((contestant) => formatContestant(contestant, unit))]),
    ...align(targets.map((target) => formatTarget(target, unit))),
    '',
  ]);
  return `${lines.join('\n')}\n`;
}

/** Name, median, best, and CPU time if measured. */
export function formatContestant({ name, median, best, cpuSeconds }: ContestantResult, unit: Unit): string[] {
  return [
    name,
    formatValue(median, unit),
    formatValue(best, unit),
    cpuSeconds === undefined ? '' : formatValue(cpuSeconds.median, 'seconds'),
  ];
}

/** The comparison, its median, range and best turn, the target, and whether it was reached. */
export function formatTarget({ target, median, spread, best, reached }: TargetResult, unit: Unit): string[] {
  const { of, against, as = 'ratio', measure, atLeast, atMost } = target;
  const ratio = against !== undefined && as === 'ratio';
  const format = (value: number): string => (ratio ? `${value.toFixed(2)} ×` : formatValue(value, measure === 'cpu' ? 'seconds' : unit));
  const compared = against === undefined ? of : `${of} ${ratio ? ':' : '−'} ${against}`;
  const what = measure === 'cpu' ? `${compared}, CPU` : compared;
  const wanted = atLeast === undefined ? `≤ ${format(atMost ?? Number.NaN)}` : `≥ ${format(atLeast)}`;
  return [what, format(median), `${format(spread[0])} … ${format(spread[1])}`, format(best), wanted, reached ? '✓' : '✗'];
}

const FORMATS: Record<Unit, (value: number) => string> = {
  'bytes/s': (value) => `${(value / 1e6).toFixed(0)} MB/s`,
  'requests/s': (value) => `${value.toFixed(0)}/s`,
  seconds: (value) => (Math.abs(value) < 1 ? `${(value * 1000).toFixed(Math.abs(value) < 0.1 ? 1 : 0)} ms` : `${value.toFixed(2)} s`),
  bytes: (value) => `${(value / 1e6).toFixed(0)} MB`,
  'round trips': (value) => value.toFixed(1),
};

export function formatValue(value: number, unit: Unit): string {
  return FORMATS[unit](value);
}

function align(rows: readonly string[][]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd());
}
