import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, chmod, constants as modes, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { constants, homedir, setPriority } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { DEBIAN_PACKAGES, RECIPES, type DebianProgram, type Recipe, type ToolName } from './recipes.ts';

export type { DebianProgram, ToolName } from './recipes.ts';

const run = promisify(execFile);

/** Tools are kept outside the checkout, so that a fresh checkout finds them. */
export const toolsDirectory =
  process.env['KUBE_REGISTRY_TOOLS'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'kube-registry', 'tools');

/** Returns the path of a tool at its pinned version. Installs it first if it is missing, and says
 *  so on stderr.
 *  @throws Error: Go or Python is missing, or the installation failed (its output is in the
 *  message) */
export async function toolPath(name: ToolName): Promise<string> {
  const recipe: Recipe = RECIPES[name];
  const directory = join(toolsDirectory, `${name}@${recipe.version}${await sourceVersion(recipe)}`);
  const path = join(directory, recipe.program);
  if (await isThere(path)) return path;
  const lock = await takeLock(directory);
  try {
    if (!(await isThere(path))) await install(name, recipe, directory);
    return path;
  } finally {
    lock.close();
  }
}

/** Returns the path of a program from a Debian package.
 *  @throws Error: it is not installed; the message names the package */
export async function debianTool(name: DebianProgram): Promise<string> {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  for (const directory of directories) {
    const path = join(directory, name);
    if (await isThere(path)) return path;
  }
  throw new Error(`${name} is missing: apt-get install ${DEBIAN_PACKAGES[name]}`);
}

async function install(name: ToolName, recipe: Recipe, directory: string): Promise<void> {
  process.stderr.write(`tools: installing ${name} ${recipe.version}, once, into ${directory}\n`);
  await mkdir(toolsDirectory, { recursive: true });
  const temporary = await mkdtemp(join(toolsDirectory, `.${name}-`));
  try {
    await build(recipe, temporary);
    if (!(await isThere(join(temporary, recipe.program)))) throw new Error(`${recipe.program} is not among what was installed`);
    await chmod(temporary, 0o755);
    await rename(temporary, directory);
  } catch (cause) {
    await rm(temporary, { recursive: true, force: true });
    const { stderr = '', message } = cause as Error & { stderr?: string };
    throw new Error(`${name} ${recipe.version} cannot be installed: ${stderr.trim() || message}`, { cause });
  }
}

/** A digest of the sources of a module in this checkout: when they change, the tool is built
 *  again. */
async function sourceVersion(recipe: Recipe): Promise<string> {
  if (recipe.kind !== 'go-module') return '';
  const hash = createHash('sha256');
  for (const file of (await readdir(recipe.directory)).sort()) hash.update(await readFile(join(recipe.directory, file)));
  return `-${hash.digest('hex').slice(0, 12)}`;
}

async function build(recipe: Recipe, directory: string): Promise<void> {
  const env = { ...process.env, CGO_ENABLED: '0', GOFLAGS: '-trimpath -buildvcs=false', GOBIN: directory };
  switch (recipe.kind) {
    case 'go':
      await execute('go', ['install', ...recipe.packages.map((path) => `${path}@${recipe.version}`)], { env, cwd: directory });
      return;
    case 'go-source': {
      const listing = await execute('go', ['mod', 'download', '-json', `${recipe.module}@${recipe.version}`], { env, cwd: directory });
      const { Dir: source } = JSON.parse(listing) as { Dir: string };
      await execute('go', ['build', '-o', join(directory, recipe.program), recipe.package], { env, cwd: source });
      return;
    }
    case 'go-module':
      await execute('go', ['build', '-ldflags', recipe.linker, '-o', join(directory, recipe.program), '.'], { env, cwd: recipe.directory });
      return;
    case 'maven':
      await copyJars(recipe, directory);
      return;
    case 'wheel': {
      const hashes = recipe.sha256.map((digest) => ` --hash=sha256:${digest}`).join('');
      await installWheels([`${recipe.distribution}==${recipe.version}${hashes}`], directory, ['--require-hashes']);
      if (recipe.program !== '') await chmod(join(directory, recipe.program), 0o755);
      return;
    }
    case 'python':
      await installWheels(recipe.requirements, directory);
  }
}

async function copyJars({ artifacts }: Extract<Recipe, { kind: 'maven' }>, directory: string): Promise<void> {
  const coordinates = (artifact: string): string => {
    const [group, name, version] = artifact.split(':');
    return `<groupId>${group}</groupId><artifactId>${name}</artifactId><version>${version}</version>`;
  };
  const dependencies = artifacts.map((artifact) => `<dependency>${coordinates(artifact)}</dependency>`).join('');
  const pom = join(directory, 'pom.xml');
  const project = `<modelVersion>4.0.0</modelVersion>${coordinates('local:jars:1')}<dependencies>${dependencies}</dependencies>`;
  await writeFile(pom, `<project>${project}</project>`);
  await execute('mvn', ['-q', '-B', '-f', pom, 'dependency:copy-dependencies', `-DoutputDirectory=${directory}`], {
    env: process.env,
    cwd: directory,
  });
}

async function installWheels(lines: readonly string[], directory: string, more: readonly string[] = []): Promise<void> {
  const requirements = join(directory, '.requirements.txt');
  await writeFile(requirements, `${lines.join('\n')}\n`);
  const options = ['--no-deps', '--no-cache-dir', '--only-binary=:all:', '--target', directory, ...more];
  await execute('python3', ['-m', 'pip', 'install', '--quiet', ...options, '-r', requirements], { env: process.env, cwd: directory });
  await rm(requirements);
}

async function execute(file: string, args: string[], options: { env: NodeJS.ProcessEnv; cwd: string }): Promise<string> {
  try {
    const running = run(file, args, { ...options, maxBuffer: 64 * 1024 * 1024 });
    const { pid } = running.child;
    if (pid !== undefined) setPriority(pid, constants.priority.PRIORITY_BELOW_NORMAL); // tests that run in the meantime have priority
    return (await running).stdout;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`${file} is missing; ${INSTALL[file] ?? 'apt-get install python3-pip'}`, { cause: error });
  }
}

/** What to do if a program that installs tools is missing. */
const INSTALL: Record<string, string | undefined> = { go: 'install Go 1.24 or later', mvn: 'apt-get install maven' };

/** One process at a time per folder. The lock is an abstract socket, which the kernel removes
 *  however the process ends. */
async function takeLock(directory: string): Promise<Server> {
  for (;;) {
    const server = createServer();
    const taken = await new Promise<boolean>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => (error.code === 'EADDRINUSE' ? resolve(false) : reject(error)));
      server.listen({ path: `\0kube-registry ${directory}`.slice(0, 107) }, () => resolve(true));
    });
    if (taken) return server;
    await sleep(500);
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path, modes.X_OK);
    return true;
  } catch (error) {
    if (['ENOENT', 'EACCES', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}

/** The folder of a tool with further programs: containerd's shim and ctr. */
export async function toolDirectory(name: ToolName): Promise<string> {
  return dirname(await toolPath(name));
}
