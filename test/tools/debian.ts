import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { DEBIAN_PACKAGES, type DebianProgram } from './recipes.ts';
import { debianTool } from './tools.ts';

/** Installs the Debian packages of `programs`, and `others`, that are missing; says so on stderr.
 *  @throws Error: some are missing, and this user is not root (the message is the command to run),
 *  or apt-get failed */
export async function installDebianPackages(programs: readonly DebianProgram[], others: readonly string[] = []): Promise<void> {
  const missing = new Set<string>();
  for (const program of programs) await debianTool(program).catch(() => missing.add(DEBIAN_PACKAGES[program]));
  for (const name of others) if (!(await isInstalled(name))) missing.add(name);
  if (missing.size === 0) return;
  const names = [...missing].sort();
  if (process.getuid?.() !== 0) throw new Error(`The tests need Debian packages that are missing: sudo apt-get install ${names.join(' ')}`);
  process.stderr.write(`tools: installing Debian packages that the tests need: ${names.join(' ')}\n`);
  await aptGet('update', '--quiet=2');
  await aptGet('install', '--yes', '--quiet=2', '--no-install-recommends', ...names);
}

async function isInstalled(name: string): Promise<boolean> {
  try {
    const { stdout } = await promisify(execFile)('dpkg-query', ['--show', '--showformat', '${Status}', name]);
    return stdout.includes('install ok installed');
  } catch {
    return false; // dpkg knows no such package
  }
}

async function aptGet(...args: string[]): Promise<void> {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const child = spawn('apt-get', args, { env, stdio: ['ignore', 'ignore', 'inherit'] });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new Error(`apt-get ${args.join(' ')} failed with ${code}`);
}
