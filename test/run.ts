import { execFile } from 'node:child_process';
import { globSync } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { spec } from 'node:test/reporters';
import { promisify } from 'node:util';
import { prepareImages } from './cluster/images.ts';
import { leftBehind, runIsolated, takeSnapshot } from './cluster/isolation.ts';
import { runFiles, type RunOptions, type TestEvent, type TestFile } from './run-files.ts';
import { until } from './support/until.ts';
import { installDebianPackages } from './tools/debian.ts';
import { needsOf, type Needs } from './tools/needs.ts';
import { RECIPES, type DebianProgram, type ToolName } from './tools/recipes.ts';
import { toolPath, toolsDirectory } from './tools/tools.ts';

// npm test [-- PATTERN …]: every test but the cluster's, or the files with one of the patterns in
// their names. npm run test:cluster [-- PATTERN …]: the cluster's, in namespaces of their own;
// exits with 3 where no cluster can run. .ci/run calls it with --all: the tests, and then the
// cluster's where one can run. A file starts as soon as the tools that it needs are there: the
// others are built in the meantime.

/** The exit code for "not on this machine", as opposed to "failed". */
const CANNOT_RUN = 3;
/** --isolated: the cluster's tests, by a process that is in its namespaces already. */
const FLAGS = ['--cluster', '--all', '--isolated'] as const;
/** Files of tests import benchmarks' helpers, but none of these. */
const BENCH_ONLY: readonly (DebianProgram | ToolName)[] = ['nginx', 'wrk', 'registry-s3'];
/** Processes that the cluster's containerd starts. */
const CLUSTER_PROGRAMS: readonly DebianProgram[] = ['runc', 'conntrack'];
const CLUSTER_PACKAGES = ['containernetworking-plugins'];
/** Tools that take longest to build, which therefore begin first. The others follow, the smallest
 *  first. */
const LONG_BUILDS: readonly ToolName[] = ['kube-all', 'kube-apiserver-1.36'];
const BUILDS_AT_ONCE = 2;

const root = join(import.meta.dirname, '..');
const flag = FLAGS.find((name) => name === process.argv[2]);
const patterns = process.argv.slice(flag === undefined ? 2 : 3);

const usual: RunOptions = { cwd: root, concurrency: availableParallelism() + 1, fileLimitMs: 20 * 60_000 };
const cluster: RunOptions = { cwd: root, concurrency: 1, fileLimitMs: 45 * 60_000 };

function findTests(inCluster: boolean): string[] {
  const all = globSync(
    ['src/**/*.test.ts', 'test/**/*.test.ts', 'chart/**/*.test.ts', 'console/**/*.test.ts', 'bench/**/*.test.ts', 'build/**/*.test.ts'],
    {
      cwd: root,
    },
  );
  const mine = all.filter((file) => file.startsWith('test/cluster/') === inCluster);
  return mine.filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern))).sort();
}

/** Requirements for a cluster that installing packages cannot meet. */
async function lacking(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'root';
  try {
    await promisify(execFile)('unshare', ['--net', '--mount', '--pid', '--fork', '--mount-proc', 'true']);
    await rmdir(await mkdtemp('/sys/fs/cgroup/kube-registry-').catch(() => mkdtemp('/sys/fs/cgroup/memory/kube-registry-')));
    return undefined;
  } catch (error) {
    return `network, mount and process namespaces of its own, and cgroups that it may write (${(error as Error).message.trim()})`;
  }
}

/** Builds the tools, two at a time. @returns for each a promise that settles with its build, and
 *  never rejects */
function build(tools: readonly ToolName[]): Map<ToolName, Promise<unknown>> {
  const order = Object.keys(RECIPES) as ToolName[];
  const queue = tools.toSorted(
    (a, b) => Number(LONG_BUILDS.includes(b)) - Number(LONG_BUILDS.includes(a)) || order.indexOf(a) - order.indexOf(b),
  );
  const built = new Map(queue.map((name) => [name, Promise.withResolvers<void>()]));
  async function worker(): Promise<void> {
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
      // A test that needs it tries again, and reports why it fails.
      await toolPath(name).catch((error: unknown) => process.stderr.write(`${(error as Error).message}\n`));
      built.get(name)?.resolve();
    }
  }
  for (let count = 0; count < BUILDS_AT_ONCE; count++) void worker();
  return new Map([...built].map(([name, { promise }]) => [name, promise]));
}

async function prepare(files: readonly string[], { inCluster }: { inCluster: boolean }): Promise<TestFile[]> {
  const needs = new Map<string, Needs>(files.map((file) => [file, needsOf(join(root, file))]));
  const debian = new Set([...needs.values()].flatMap((need) => need.debian).filter((program) => !BENCH_ONLY.includes(program)));
  if (inCluster) for (const program of CLUSTER_PROGRAMS) debian.add(program);
  await installDebianPackages([...debian], inCluster ? CLUSTER_PACKAGES : []);
  const toolsOf = (file: string): readonly ToolName[] => needs.get(file)?.tools.filter((tool) => !BENCH_ONLY.includes(tool)) ?? [];
  const built = build([...new Set(files.flatMap(toolsOf))]);
  const ready = async (file: string): Promise<void> => {
    for (const tool of toolsOf(file)) await built.get(tool);
  };
  return files
    .toSorted((a, b) => Math.min(toolsOf(a).length, 1) - Math.min(toolsOf(b).length, 1))
    .map((file) => ({ path: join(root, file), ready: ready(file) }));
}

/** @returns whether all passed */
async function report(files: readonly TestFile[], options: RunOptions): Promise<boolean> {
  let passed = true;
  const events = runFiles(files, options).on('data', ({ type, data }: TestEvent) => {
    if (type === 'test:summary') passed = data['success'] === true;
  });
  for await (const text of events.compose(spec)) process.stdout.write(text as string);
  return passed;
}

/** The cluster's tests, and whether they leave anything behind; within namespaces that end with
 *  this process. */
async function runInNamespaces(files: readonly string[]): Promise<number> {
  const before = await takeSnapshot();
  const passed = await report(
    files.map((file) => ({ path: join(root, file), ready: Promise.resolve() })),
    cluster,
  );
  let left: string[] = [];
  const look = async () => (left = leftBehind(before, await takeSnapshot())).length === 0;
  await until(look, 'nothing is left behind', 10_000).catch(() =>
    process.stderr.write(`left behind by the cluster's tests:\n${left.join('\n')}\n`),
  );
  return passed && left.length === 0 ? 0 : 1;
}

async function runCluster(files: readonly string[]): Promise<number> {
  for (const { ready } of await prepare(files, { inCluster: true })) await ready;
  await prepareImages(); // a build takes packages from outside, which the namespaces do not reach
  return runIsolated([process.execPath, import.meta.filename, '--isolated', ...patterns], join(toolsDirectory, 'cluster.lock'));
}

// Files of tests import much of the same code: it is compiled once for all of them. With coverage,
// cached code would be counted less precisely.
if (process.env['NODE_V8_COVERAGE'] === undefined) process.env['NODE_COMPILE_CACHE'] ??= join(tmpdir(), 'node-compile-cache');

async function main(): Promise<number> {
  if (flag === '--isolated') return runInNamespaces(findTests(true));
  const [files, clusterFiles] = [flag === '--cluster' ? [] : findTests(false), flag === undefined ? [] : findTests(true)];
  if (files.length + clusterFiles.length === 0) {
    process.stderr.write(`No test file has ${patterns.join(' or ')} in its name\n`);
    return 1;
  }
  const lack = clusterFiles.length === 0 ? undefined : await lacking();
  if (lack !== undefined) process.stderr.write(`The cluster's tests cannot run here: they need ${lack}\n`);
  if (lack !== undefined && files.length === 0) return CANNOT_RUN;
  if (files.length > 0 && !(await report(await prepare(files, { inCluster: false }), usual))) return 1;
  return lack !== undefined || clusterFiles.length === 0 ? 0 : runCluster(clusterFiles);
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 1;
}
