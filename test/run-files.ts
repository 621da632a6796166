import { run } from 'node:test';
import { PassThrough } from 'node:stream';
import type { Readable } from 'node:stream';

export interface TestFile {
  path: string;
  /** Resolves when everything that the file needs is there. Never rejects. */
  ready: Promise<unknown>;
}

export interface RunOptions {
  cwd: string;
  /** How many files run at once, each in a process of its own. */
  concurrency: number;
  fileLimitMs: number;
}

/** An event of node:test's run(), as reporters read it. */
export interface TestEvent {
  type: string;
  data: Record<string, unknown>;
}

const COUNTS = ['tests', 'suites', 'passed', 'failed', 'cancelled', 'skipped', 'todo'] as const;
type Counts = Record<(typeof COUNTS)[number], number>;
/** Lines of the summary, as node:test words them. */
const SUMMARY = {
  tests: 'tests',
  suites: 'suites',
  passed: 'pass',
  failed: 'fail',
  cancelled: 'cancelled',
  skipped: 'skipped',
  todo: 'todo',
};
const SUMMARY_LINE = new RegExp(`^(?:${Object.values(SUMMARY).join('|')}|duration_ms) [\\d.]+$`);

/** Runs every file as soon as it is ready, those that are ready first in the order given.
 *  @returns the events for a reporter, file after file, with one summary at the end. Its
 *  `data.success` says whether all passed. */
export function runFiles(files: readonly TestFile[], options: RunOptions): Readable {
  const events = new PassThrough({ objectMode: true });
  const counts: Counts = { tests: 0, suites: 0, passed: 0, failed: 0, cancelled: 0, skipped: 0, todo: 0 };
  const started = performance.now();

  async function runFile(path: string): Promise<void> {
    const own: TestEvent[] = [];
    // A server that a failed test has left behind would keep its process running.
    const stream = run({ files: [path], cwd: options.cwd, timeout: options.fileLimitMs, execArgv: ['--test-force-exit'] });
    for await (const event of stream as AsyncIterable<TestEvent>) own.push(event);
    for (const event of own) {
      if (isTotal(event)) add(counts, event);
      else if (!isSummaryLine(event)) events.write(event);
    }
  }

  void runInOrderOfReadiness(files, options.concurrency, runFile).then(() => {
    const durationMs = performance.now() - started;
    for (const name of COUNTS) events.write(diagnostic(`${SUMMARY[name]} ${counts[name]}`));
    events.write(diagnostic(`duration_ms ${durationMs}`));
    const success = counts.failed === 0 && counts.cancelled === 0;
    events.end({ type: 'test:summary', data: { success, counts, duration_ms: durationMs, file: undefined } });
  });
  return events;
}

/** The totals of a run; those of a file name it. */
function isTotal({ type, data }: TestEvent): boolean {
  return type === 'test:summary' && data['file'] === undefined;
}

function isSummaryLine({ type, data }: TestEvent): boolean {
  return type === 'test:summary' || (type === 'test:diagnostic' && data['nesting'] === 0 && SUMMARY_LINE.test(String(data['message'])));
}

function add(counts: Counts, { data }: TestEvent): void {
  const own = data['counts'] as Counts;
  for (const name of COUNTS) counts[name] += own[name];
}

function diagnostic(message: string): TestEvent {
  return { type: 'test:diagnostic', data: { nesting: 0, message, level: 'info' } };
}

async function runInOrderOfReadiness(
  files: readonly TestFile[],
  concurrency: number,
  work: (path: string) => Promise<void>,
): Promise<void> {
  const ready = new Set<TestFile>();
  const waiting = new Set(files);
  let wake = Promise.withResolvers<void>();
  const notify = () => {
    wake.resolve();
    wake = Promise.withResolvers();
  };
  for (const file of files) {
    void file.ready.then(() => {
      ready.add(file);
      notify();
    });
  }
  async function worker(): Promise<void> {
    while (waiting.size > 0) {
      const next = files.find((file) => waiting.has(file) && ready.has(file));
      if (next === undefined) {
        await wake.promise;
        continue;
      }
      waiting.delete(next);
      await work(next.path);
      notify();
    }
  }
  await Promise.all(Array.from({ length: concurrency }, worker));
}
