import stringWidth from 'string-width';
import { printable } from '../io/printable.ts';

/** Renders rows under a heading, kubectl-style: every column is as wide as its widest cell, in
 *  terminal columns. A CJK character or an emoji takes two of them, a combining character none.
 *  Control characters, which cells may hold from outside, are escaped. */
export function renderTable(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [heading, ...rows].map((row) => row.map(printable));
  const widths = heading.map((_, column) => Math.max(...all.map((row) => stringWidth(row[column] ?? ''))));
  return all
    .map((row) => {
      const cells = row.map((cell, column) => cell + ' '.repeat(Math.max(0, (widths[column] ?? 0) - stringWidth(cell))));
      return `${cells.join('   ').trimEnd()}\n`;
    })
    .join('');
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** Formats a number of bytes for display: `1.5 GiB`. */
export function formatBytes(count: number): string {
  const power = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, count)) / 10)));
  return `${(count / 2 ** (10 * power)).toFixed(power === 0 ? 0 : 1)} ${UNITS[power]}`;
}
