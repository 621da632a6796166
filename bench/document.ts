import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { renderChart } from './chart.ts';
import { notes } from './notes.ts';
import { formatContestant, formatTarget } from './report.ts';
import type { RowResult, Text } from './row.ts';
import { rows } from './rows/rows.ts';

const docs = join(import.meta.dirname, '../docs');
const RESULTS = join(docs, 'benchmarks.json');

/** What the documents are made of: the last result of each row. */
interface Results {
  machine: string;
  rows: RowResult[];
}

/** Puts new results beside what is known of the other rows, and writes docs/benchmarks.md, its twin and their charts. */
export function writeDocuments(results: readonly RowResult[], machine: string): void {
  const before = readResults();
  const known = new Map([...before.rows, ...results].map((result) => [result.name, result]));
  const all = rows.flatMap(({ name }) => known.get(name) ?? []);
  writeFileSync(RESULTS, `${JSON.stringify({ machine, rows: all }, undefined, 2)}\n`);
  for (const [language, suffix] of [
    ['en', ''],
    ['zh', '.zh-CN'],
  ] as const) {
    writeFileSync(join(docs, `benchmarks${suffix}.svg`), renderChart(all, language));
    writeFileSync(join(docs, `benchmarks${suffix}.md`), renderDocument({ machine, rows: all }, language));
  }
}

function readResults(): Results {
  try {
    return JSON.parse(readFileSync(RESULTS, 'utf8')) as Results;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { machine: '', rows: [] };
    throw error;
  }
}

const WORDS = {
  title: { en: 'Benchmarks', zh: '性能测试' },
  made: {
    en: 'Made by `npm run bench -- --write`, the text in bench/notes.ts.',
    zh: '由 `npm run bench -- --write` 生成，文字在 bench/notes.ts 中。',
  },
  chart: { en: 'Each contestant beside the best one that is not this registry', zh: '各参与者与本 registry 以外最佳者的对比' },
  contestants: { en: '| contestant | median | best |', zh: '| 参与者 | 中位数 | 最佳 |' },
  cpu: { en: ' CPU time |', zh: ' CPU 时间 |' },
  targets: {
    en: '| compared | median | spread | best | to reach | |',
    zh: '| 比较 | 中位数 | 范围 | 最佳 | 目标 | |',
  },
  turns: { en: 'turns', zh: '轮' },
} satisfies Record<string, Text>;

function renderDocument({ machine, rows }: Results, language: keyof Text): string {
  const suffix = language === 'zh' ? '.zh-CN' : '';
  const lines = [
    `<!-- ${WORDS.made[language]} -->`,
    `# ${WORDS.title[language]}`,
    '',
    notes.method[language],
    '',
    machine,
    '',
    `![${WORDS.chart[language]}](benchmarks${suffix}.svg)`,
    '',
    ...rows.flatMap((row) => renderRow(row, language)),
    notes.profiles[language],
    '',
  ];
  return lines.join('\n');
}

function renderRow({ name, title, unit, contestants, targets, measuredAt }: RowResult, language: keyof Text): string[] {
  const day = new Date(measuredAt).toISOString().slice(0, 10);
  const note = notes.rows[name]?.[language];
  const hasCpu = contestants.some(({ cpuSeconds }) => cpuSeconds !== undefined);
  return [
    `## ${title[language]}`,
    '',
    `\`npm run bench -- ${name}\`, ${contestants[0]?.values.length ?? 0} ${WORDS.turns[language]}, ${day}`,
    '',
    `${WORDS.contestants[language]}${hasCpu ? WORDS.cpu[language] : ''}`,
    `|---|---|---|${hasCpu ? '---|' : ''}`,
    ...contestants.map(
      (contestant) =>
        `| ${formatContestant(contestant, unit)
          .slice(0, hasCpu ? 4 : 3)
          .join(' | ')} |`,
    ),
    '',
    WORDS.targets[language],
    '|---|---|---|---|---|---|',
    ...targets.map((target) => `| ${formatTarget(target, unit).join(' | ')} |`),
    '',
    ...(note === undefined ? [] : [note, '']),
  ];
}
