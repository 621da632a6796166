import { isLessBetter, type RowResult, type Text } from './row.ts';

const WIDTH = 760;
const LABEL = 330;
const BAR = 12;
const ROW = 20;
/** A bar of full width means a contestant twice as good as the best of the others. */
const MOST = 2;

/** Shows how much better or worse each contestant of a row is than the best contestant other than
 *  this registry, which is the line at 1. */
export function renderChart(results: readonly RowResult[], language: keyof Text): string {
  const parts: string[] = [];
  let y = 10;
  for (const { title, unit, contestants } of results) {
    const lessIsBetter = isLessBetter(unit);
    const others = contestants.filter(({ name }) => OTHERS.has(name)).map(({ median }) => median);
    if (others.length === 0) continue;
    const reference = lessIsBetter ? Math.min(...others) : Math.max(...others);
    parts.push(text(0, (y += ROW), escape(title[language]), 'title'));
    for (const { name, median } of contestants) {
      const score = lessIsBetter ? reference / median : median / reference;
      const width = Math.max(1, (Math.min(score, MOST) / MOST) * (WIDTH - LABEL - 60));
      y += ROW;
      parts.push(
        text(LABEL - 8, y, escape(name), 'name'),
        `<rect class="${OTHERS.has(name) ? 'other' : 'own'}" x="${LABEL}" y="${y - BAR + 2}" width="${width.toFixed(1)}" height="${BAR}"/>`,
        text(LABEL + width + 6, y, `${score.toFixed(2)} ×`, 'value'),
      );
    }
    y += 8;
  }
  const middle = LABEL + (WIDTH - LABEL - 60) / MOST;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${y + 14}" width="${WIDTH}" height="${y + 14}" role="img">
<style>
  svg { background: #fff; font: 12px system-ui, sans-serif } .title { font-weight: 600; fill: #222 } .name { text-anchor: end; fill: #444 }
  .value { fill: #666; font-size: 11px } .own { fill: #2563eb } .other { fill: #b4bcc8 } line { stroke: #888; stroke-dasharray: 3 3 }
</style>
<line x1="${middle}" y1="10" x2="${middle}" y2="${y + 4}"/>
${parts.join('\n')}
</svg>
`;
}

/** The contestants other than this registry. */
const OTHERS = new Set(['distribution', 'nginx', 'upstream', 's3']);

function text(x: number, y: number, content: string, kind: string): string {
  return `<text class="${kind}" x="${x.toFixed(1)}" y="${y}">${content}</text>`;
}

function escape(content: string): string {
  return content.replace(/[&<>]/g, (character) => `&#${character.charCodeAt(0)};`);
}
