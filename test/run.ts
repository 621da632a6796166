import { execFile } from 'node:child_process';
import { globSync } from 'node:fs';
import { mkdtemp, rmdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { promisify } from 'node:util';
import { DEBIAN_PACKAGES, RECIPES, type DebianProgram, type ToolName } from './tools/recipes.ts';
import { debianTool, toolPath } from './tools/tools.ts';

// npm test [-- PATTERN …]: every test but the cluster's, or those whose file name holds one of the patterns.
// npm run test:cluster [-- PATTERN …]: the cluster's, one after the other; ends with 3 where no cluster can be had.

/** The exit code that tells "not on this machine" from "failed". */
const CANNOT_RUN = 3;
const CLUSTER = process.argv[2] === '--cluster';
const FILE_LIMIT_MS = (CLUSTER ? 15 : 4) * 60_000;
const BENCH_ONLY: readonly string[] = ['chromium', 'nginx', 'wrk'];
const CLUSTER_ONLY: readonly string[] = ['coredns', 'buildah', 'conntrack', 'debootstrap', 'ip', 'iptables'];
const UNUSED = CLUSTER ? BENCH_ONLY : [...BENCH_ONLY, ...CLUSTER_ONLY];

const root = join(import.meta.dirname, '..');
const patterns = process.argv.slice(CLUSTER ? 3 : 2);

async function missingPackages(): Promise<string[]> {
  const missing = new Set<string>();
  for (const program of Object.keys(DEBIAN_PACKAGES) as DebianProgram[]) {
    if (UNUSED.includes(program)) continue;
    await debianTool(program).catch(() => missing.add(DEBIAN_PACKAGES[program]));
  }
  return [...missing];
}

/** What this machine lacks for a cluster, whatever is installed. */
async function lacking(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'root';
  try {
    await promisify(execFile)('unshare', ['--net', '--mount', 'true']);
    await rmdir(await mkdtemp('/sys/fs/cgroup/kube-registry-').catch(() => mkdtemp('/sys/fs/cgroup/memory/kube-registry-')));
    return undefined;
  } catch (error) {
    return `network and mount namespaces of its own, and cgroups that it may write (${(error as Error).message.trim()})`;
  }
}

async function prepare(): Promise<boolean> {
  const missing = await missingPackages();
  if (missing.length > 0) {
    process.stderr.write(`The tests need Debian packages that are missing: apt-get install ${missing.join(' ')}\n`);
    return false;
  }
  for (const name of Object.keys(RECIPES) as ToolName[]) if (!UNUSED.includes(name)) await toolPath(name);
  return true;
}

function findTests(): string[] {
  const all = globSync(['src/**/*.test.ts', 'test/**/*.test.ts', 'chart/**/*.test.ts', 'bench/**/*.test.ts'], { cwd: root });
  const mine = all.filter((file) => file.startsWith('test/cluster/') === CLUSTER);
  return mine.filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern))).sort();
}

const files = findTests();
const lack = CLUSTER ? await lacking() : undefined;
if (lack !== undefined) {
  process.stderr.write(`The cluster cannot run here: it needs ${lack}\n`);
  process.exitCode = CANNOT_RUN;
} else if (files.length === 0) {
  process.stderr.write(`No test file has ${patterns.join(' or ')} in its name\n`);
  process.exitCode = 1;
} else if (await prepare()) {
  run({
    files: files.map((file) => join(root, file)),
    cwd: root,
    concurrency: CLUSTER ? 1 : availableParallelism() + 1,
    timeout: FILE_LIMIT_MS,
    forceExit: true, // a server that a failed test has left behind would keep its file running for ever
  })
    .on('test:fail', ({ todo }) => {
      if (todo === undefined || todo === false) process.exitCode = 1;
    })
    .compose(spec)
    .pipe(process.stdout);
} else {
  process.exitCode = 1;
}
