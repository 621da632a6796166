import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';

/** Every room may import these. They know nothing of the others, and import `oci` alone, and what the
 *  table says. */
const FOUNDATION = ['oci', 'async', 'io'];
/** Which rooms a room may import beside itself and the foundation. A room is a folder of src, or a
 *  folder within one when it is listed here on its own. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  oci: [],
  async: [],
  io: ['async'],
  telemetry: [],
  config: [],
  http: ['http/raw'],
  'http/raw': ['http', 'telemetry'],
  upstream: ['http', 'telemetry'],
  clouds: [],
  peers: ['http', 'upstream', 'telemetry'],
  store: ['telemetry'],
  'store/filesystem': ['store'],
  'store/s3': ['http/raw', 'store', 'telemetry'],
  'store/tiered': ['store', 'store/filesystem', 'telemetry'],
  download: ['store', 'download/spool', 'telemetry'],
  'download/spool': [],
  cache: ['download', 'peers', 'upstream', 'store', 'telemetry'],
  registry: ['telemetry'],
  upkeep: ['store', 'telemetry'],
  nearest: ['download', 'http', 'upstream', 'telemetry'],
  layout: ['store'],
  hosted: ['config', 'store', 'telemetry'],
  console: ['console/api', 'server', 'store', 'telemetry', 'upkeep'],
  'console/api': [],
  'console/handlers': ['clash', 'console', 'console/api', 'policy', 'store', 'telemetry', 'upkeep'],
  policy: ['store', 'upkeep'],
  server: ['telemetry'],
  kubernetes: [],
  'pull-secrets': ['kubernetes', 'telemetry'],
  webhook: ['config', 'kubernetes', 'pull-secrets', 'server', 'telemetry'],
  agent: ['telemetry'],
  clash: ['config', 'telemetry', 'clash/subscription', 'clash/config', 'clash/mihomo'],
  'clash/subscription': ['http'],
  'clash/config': ['config', 'http', 'clash/subscription'],
  'clash/mihomo': ['telemetry', 'clash/subscription', 'clash/config'],
};
/** They compose the program of the other rooms, and may import every one of them. */
const COMPOSITION_ROOTS = ['commands', 'testing'];
/** They make a process of the program. */
const PROGRAM = ['src/main.ts', 'src/program.ts'];
/** The only rooms that may write HTTP responses. */
const HTTP_SERVER_ROOMS = ['server', 'webhook', 'clash', 'console'];

const root = join(import.meta.dirname, '..');
const sources = globSync('src/**/*.ts', { cwd: root }).filter((file) => !file.endsWith('.test.ts'));
const production = sources.filter((file) => !file.startsWith('src/testing/'));
const IMPORT = /(?:from|import)\s*\(?\s*'(\.{1,2}\/[^']+)'/g;

function textOf(file: string): string {
  return readFileSync(join(root, file), 'utf8');
}

function importsOf(file: string): string[] {
  return [...textOf(file).matchAll(IMPORT)].map(([, target = '']) => relative(root, join(root, dirname(file), target)));
}

function roomOf(file: string): string {
  const [, outer = '', inner = ''] = dirname(file).split('/');
  return `${outer}/${inner}` in MAY_IMPORT ? `${outer}/${inner}` : outer;
}

function mayImport(from: string, to: string): boolean {
  if (FOUNDATION.includes(from)) return to === 'oci' || MAY_IMPORT[from]?.includes(to) === true;
  return FOUNDATION.includes(to) || MAY_IMPORT[from]?.includes(to) === true;
}

test('every room imports only the rooms that the table allows', () => {
  assert.ok(production.length > 100, 'the sources were found');
  const breaches: string[] = [];
  for (const file of production.filter((file) => !PROGRAM.includes(file))) {
    const from = roomOf(file);
    for (const target of importsOf(file)) {
      const to = roomOf(target);
      const allowed = COMPOSITION_ROOTS.includes(from) ? to !== 'testing' : mayImport(from, to);
      if (from !== to && !allowed) breaches.push(`${file} imports ${target}`);
    }
  }
  assert.deepEqual(breaches, []);
});

test('no room of the table is unused, and no import that it allows', () => {
  const used = new Set<string>();
  for (const file of production) for (const target of importsOf(file)) used.add(`${roomOf(file)} > ${roomOf(target)}`);
  const allowed = Object.entries(MAY_IMPORT).flatMap(([from, rooms]) => rooms.map((to) => `${from} > ${to}`));
  assert.deepEqual(
    allowed.filter((edge) => !used.has(edge)),
    [],
  );
});

test('no file imports itself through others', () => {
  const done = new Set<string>();
  const circles: string[] = [];
  function visit(file: string, path: readonly string[]): void {
    if (path.includes(file)) circles.push([...path.slice(path.indexOf(file)), file].join(' > '));
    if (path.includes(file) || done.has(file)) return;
    for (const target of importsOf(file)) if (target.endsWith('.ts')) visit(target, [...path, file]);
    done.add(file);
  }
  for (const file of sources) visit(file, []);
  assert.deepEqual(circles, []);
});

test('only main.ts and program.ts touch the process', () => {
  const breaches = production.filter(
    (file) => !PROGRAM.includes(file) && /\bprocess\.(?:env|argv|exit|on|once|stdout|stderr)\b/.test(textOf(file)),
  );
  assert.deepEqual(breaches, []);
});

test('only server rooms write HTTP status lines', () => {
  const breaches = production.filter(
    (file) => !HTTP_SERVER_ROOMS.includes(roomOf(file).split('/')[0] ?? '') && /\.writeHead\(|statusCode = /.test(textOf(file)),
  );
  assert.deepEqual(breaches, []);
});

/** A citation in code: `promise 12`, `promises 1 to 8, 12`, also over the end of a line of a
 *  comment. */
const CITATION = /\bpromises? ([WAC]?\d+(?:(?:, | and | to )[WAC]?\d+)*)/g;
const TEST_OF_PROMISE = /['"`]promise ([WAC]?\d+): /g;

/** The numbers of a citation: 1 to 4, 12 is 1, 2, 3, 4, 12. */
function numbersOf(citation: string): string[] {
  return citation.split(/, | and /).flatMap((part) => {
    const [first = '', last = first] = part.split(' to ');
    const letter = /^[WAC]?/.exec(first)?.[0] ?? '';
    const [from, to] = [first, last].map((number) => Number(number.slice(letter.length))) as [number, number];
    return Array.from({ length: to - from + 1 }, (_, index) => `${letter}${from + index}`);
  });
}

/** The numbers of the promises on a page of the docs, in its order. */
function promisesOf(page: string): string[] {
  return [...textOf(page).matchAll(/^\*\*([WAC]?\d+)\. /gm)].map(([, number = '']) => number);
}

test('every promise has a test, and every number that code cites is a promise', () => {
  const promises = promisesOf('docs/promises.md');
  assert.ok(promises.length > 30, 'the promises were found');
  assert.deepEqual(promises, [...new Set(promises)], 'each has a number of its own');
  assert.deepEqual(promisesOf('docs/promises.zh-CN.md'), promises, 'the Chinese page has the same');
  const code = globSync(['src/**/*.ts', 'test/**/*.ts', 'chart/**/*.ts', 'bench/**/*.ts'], { cwd: root });
  const proven = new Set<string>();
  const unknown: string[] = [];
  for (const file of code) {
    const text = textOf(file).replaceAll(/\n\s*(?:\*|\/\/) */g, ' ');
    for (const [, number = ''] of file.endsWith('.test.ts') ? text.matchAll(TEST_OF_PROMISE) : []) proven.add(number);
    for (const [citation, numbers = ''] of text.matchAll(CITATION)) {
      if (numbersOf(numbers).some((number) => !promises.includes(number))) unknown.push(`${file}: ${citation}`);
    }
  }
  assert.deepEqual(unknown, [], 'no code cites a promise that docs/promises.md lacks');
  assert.deepEqual(
    promises.filter((number) => !proven.has(number)),
    [],
    'no promise is without a test',
  );
});

/** Of functions that return a Registry. */
const MAKER = /^export (?:async )?function (\w+)\((?:(?!\n\})[^])*?\): (?:Registry|Promise<Registry>) \{/gm;
test('the Registry suite runs over every function that makes a Registry', () => {
  const makers = production.flatMap((file) => [...textOf(file).matchAll(MAKER)].map(([, name = '']) => name));
  assert.ok(makers.length >= 7, makers.join(', '));
  const suite = textOf('src/testing/registry-makers.test.ts');
  assert.deepEqual(
    makers.filter((name) => !new RegExp(`\\b${name}\\(`).test(suite)),
    [],
  );
});

/** A log call whose first argument begins with its event, or is a variable that does. */
const LOG_CALL = /\blog(?:\??\.(debug|info|warn|error|fatal)|\[[^\]]+\])\(\s*(\{\s*event: |(?:entry|fields),)?/g;
const EVENT = /\b(?:event: |unlessRefused\()([^,}]+)/g;
const EVENT_NAME = /'([^']*)'/g;

/** The events that a file logs. */
function eventsOf(file: string): string[] {
  return [...textOf(file).matchAll(EVENT)].flatMap(([, value = '']) => [...value.matchAll(EVENT_NAME)].map(([, name = '']) => name));
}

test('every log call has an event in kebab-case as its first field', () => {
  const without = production.flatMap((file) =>
    [...textOf(file).matchAll(LOG_CALL)].flatMap(([call, , event]) => (event === undefined ? [`${file}: ${call}`] : [])),
  );
  assert.deepEqual(without, []);
  const events = production.flatMap(eventsOf);
  assert.deepEqual(
    events.filter((event) => !/^[a-z0-9]+(?:-[a-z0-9]+)+$/.test(event)),
    [],
  );
});

test('docs/log-events.md explains every event, and no other', () => {
  const events = [...new Set(production.flatMap(eventsOf))].sort();
  assert.ok(events.length > 80, 'the events were found');
  for (const page of ['docs/log-events.md', 'docs/log-events.zh-CN.md']) {
    const explained = [...textOf(page).matchAll(/^\| `([^`]+)` \|/gm)].map(([, name = '']) => name);
    assert.deepEqual(explained.toSorted(), events, `add the row to ${page}, or remove it`);
  }
});

test('every file that CONTRIBUTING.md names is there, and has the functions that it names', () => {
  const unknown: string[] = [];
  for (const line of textOf('CONTRIBUTING.md').split('\n')) {
    const files = [...line.matchAll(/`((?:src|test|docs)\/[\w./*-]+)`|\]\(((?:src|test|docs)\/[\w./-]+)\)/g)].map(
      ([, quoted, linked = '']) => quoted ?? linked,
    );
    unknown.push(...files.filter((file) => globSync(file.replace(/\/$/, ''), { cwd: root }).length === 0));
    const texts = files.filter((file) => file.endsWith('.ts') && !file.includes('*')).map(textOf);
    for (const [, name = ''] of line.matchAll(/`(\w+)\(\)`/g))
      if (texts.length > 0 && !texts.some((text) => text.includes(name))) unknown.push(name);
  }
  assert.deepEqual(unknown, []);
});

test('npm checks every package that it installs against a hash in the lock file', () => {
  const { packages } = JSON.parse(textOf('package-lock.json')) as { packages: Record<string, { integrity?: string; link?: true }> };
  const installed = Object.entries(packages).filter(([path, { link }]) => path !== '' && link === undefined);
  assert.ok(installed.length > 100, 'the packages were found');
  assert.deepEqual(
    installed.filter(([, { integrity }]) => integrity === undefined).map(([path]) => path),
    [],
    'add the integrity that npm view NAME@VERSION dist.integrity prints',
  );
});
