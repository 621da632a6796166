// Renders compatibility.md and its Chinese twin from compatibility.json, which tests write
// (test/support/compatibility.ts).
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export const KINDS = ['upstream', 'mirror', 'runtime', 'client', 'kubernetes', 'cluster'] as const;

/** One thing that a test tried with real software, or with a server scripted after it. */
export interface CompatibilityRow {
  kind: (typeof KINDS)[number];
  /** The software. */
  name: string;
  /** As it reports itself, or `scripted` for a server of the tests that behaves as this software
   *  does. */
  version: string;
  /** False: it does not work, and the test proves that it does not. */
  works: boolean;
  /** What was tested and observed, in English and Chinese. */
  what: { en: string; zh: string };
  /** The file of the test. */
  test: string;
}

const HEADINGS: Record<CompatibilityRow['kind'], { en: string; zh: string }> = {
  upstream: { en: 'Upstream registries', zh: '上游仓库' },
  mirror: { en: 'Mirrors', zh: '镜像站' },
  runtime: { en: 'Container runtimes', zh: '容器运行时' },
  client: { en: 'Clients', zh: '客户端' },
  kubernetes: { en: 'Kubernetes versions', zh: 'Kubernetes 版本' },
  cluster: { en: 'Kinds of clusters', zh: '集群类型' },
};

const INTRODUCTION = {
  en: `<!-- Generated from compatibility.json by npm run generate; tests write that file: npm run compatibility. -->
# Compatibility

[中文](compatibility.zh-CN.md) · [Installation](install.md) · [Upstreams](upstreams.md) · [Promises](promises.md)

The tested software, its version, and the result. Each row was written by the test that it names, after that test had passed;
\`npm test\` fails when a test and its row no longer agree. Software that is not in a table was not tested.
`,
  zh: `<!-- 由 npm run generate 根据 compatibility.json 生成;该文件由测试写入:npm run compatibility。 -->
# 兼容性

[English](compatibility.md) · [安装](install.zh-CN.md) · [上游](upstreams.zh-CN.md) · [承诺](promises.zh-CN.md)

已测试的软件、版本和结果。每一行都由它所列的测试在通过之后写入;测试与表格不一致时 \`npm test\` 会失败。未列出的软件没有测试。
`,
};

const COLUMNS = {
  en: ['software', 'version', 'works', 'tested behaviour', 'test'],
  zh: ['软件', '版本', '可用', '测试内容', '测试'],
};

export function readRows(): CompatibilityRow[] {
  return JSON.parse(readFileSync(join(import.meta.dirname, 'compatibility.json'), 'utf8')) as CompatibilityRow[];
}

/** The rows in a fixed order, so that the file does not depend on which test ran first. */
export function sortRows(rows: readonly CompatibilityRow[]): CompatibilityRow[] {
  const keyOf = ({ kind, name, version, what }: CompatibilityRow) => [String(KINDS.indexOf(kind)), name, version, what.en].join('\0');
  return rows.toSorted((one, other) => (keyOf(one) < keyOf(other) ? -1 : 1));
}

export function renderCompatibility(language: 'en' | 'zh'): string {
  const rows = sortRows(readRows());
  const tables = KINDS.map((kind) => ({ kind, own: rows.filter((row) => row.kind === kind) }))
    .filter(({ own }) => own.length > 0)
    .map(({ kind, own }) => renderTable(HEADINGS[kind][language], own, language));
  return [INTRODUCTION[language], ...tables].join('\n');
}

function renderTable(heading: string, rows: readonly CompatibilityRow[], language: 'en' | 'zh'): string {
  const [yes, no] = language === 'en' ? ['yes', '**no**'] : ['是', '**否**'];
  const lines = rows.map(({ name, version, works, what, test }) => {
    const cells = [name, version, works ? yes : no, what[language].replaceAll('|', '\\|'), `[${test.replace(/^.*\//, '')}](../${test})`];
    return `| ${cells.join(' | ')} |`;
  });
  const columns = COLUMNS[language];
  return [`## ${heading}`, '', `| ${columns.join(' | ')} |`, `|${'---|'.repeat(columns.length)}`, ...lines, ''].join('\n');
}
