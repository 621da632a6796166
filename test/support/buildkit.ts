import { execFile } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { debianTool, toolPath } from '../tools/tools.ts';

const run = promisify(execFile);

export interface Builder {
  /** A directory of its own, which need not exist. */
  directory: string;
  /** The content of buildkitd.toml. */
  config: string;
  /** The content of Docker's config.json: its credentials. */
  credentials?: object;
}

/** Starts BuildKit for one build, and builds the Dockerfile in `context`. Needs root. @param args
 *  see support/buildkit/main.go @returns a line for each step: `done: STEP` or `cached: STEP`
 *  @throws Error with stderr */
export async function build({ directory, config, credentials = {} }: Builder, context: string, args: readonly string[]): Promise<string> {
  await mkdir(directory, { recursive: true });
  const file = join(directory, 'buildkitd.toml');
  await writeFile(file, config);
  await writeFile(join(directory, 'config.json'), JSON.stringify(credentials));
  const own = ['-root', join(directory, 'root'), '-config', file, '-runc', await debianTool('runc')];
  const env = { ...process.env, DOCKER_CONFIG: directory };
  return (await run(await toolPath('buildkit'), [...own, ...args, context], { env })).stdout;
}
