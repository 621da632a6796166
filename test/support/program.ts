import { AsyncLocalStorage } from 'node:async_hooks';
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { builtProgram } from '../../build/program.ts';
import { answersOk, startProcess, type RunningProcess } from './process.ts';
import { freePort, temporaryDirectory } from './temporary.ts';

type Command = readonly [string, ...string[]];

const root = join(import.meta.dirname, '../..');

/** The command line of kube-registry, from this checkout: the bundle, or the sources while coverage
 *  is counted. */
export const PROGRAM = commandOf(process.env['NODE_V8_COVERAGE'] === undefined ? await builtProgram() : join(root, 'src/main.ts'));

/** The command line that `startProgram` runs instead of PROGRAM, in functions that this runs. */
export const otherProgram = new AsyncLocalStorage<Command>();

/** The command line of kube-registry from another checkout, which is built if it can be.
 *  @throws Error: the directory is no checkout, or cannot be built */
export async function programOf(checkout: string): Promise<Command> {
  const build = join(checkout, 'build/main.ts');
  if (!existsSync(build)) return commandOf(join(checkout, 'src/main.ts'));
  await promisify(execFile)(process.execPath, [build]);
  return commandOf(join(checkout, 'dist/program/main.mjs'));
}

/** As the first line of a main file has it started: #!/usr/bin/env -S node FLAGS */
function commandOf(main: string): Command {
  const flags = readFileSync(main, 'utf8').split('\n', 1)[0]?.split(' ').slice(3) ?? [];
  return [process.execPath, ...flags, main];
}

export type LogLine = Record<string, unknown> & { level: string; msg: string };

export interface Program extends RunningProcess {
  /** Its log so far, without lines that are not JSON. */
  log(): LogLine[];
}
export interface ServingProgram extends Program {
  /** http://127.0.0.1:PORT of `listen`. */
  url: string;
  /** 127.0.0.1:PORT, as image names say it. */
  host: string;
  /** http://127.0.0.1:PORT of `admin`. */
  admin: string;
}

export interface ProgramOptions {
  args?: readonly string[];
  env?: NodeJS.ProcessEnv;
  ready?: () => Promise<boolean>;
  /** A file that this process sees as /etc/hosts, in a mount namespace of its own: names that the
   *  test defines. Needs root. */
  hosts?: string;
  /** A prefix of the command, for example to run it in another network namespace. */
  enter?: readonly string[];
}

/** Runs `kube-registry COMMAND`, in a process of its own, with this configuration. */
export async function startProgram(
  command: string,
  configuration: Record<string, unknown>,
  options: ProgramOptions = {},
): Promise<Program> {
  const temporary = await temporaryDirectory();
  const file = join(temporary.path, 'config.yaml');
  await writeFile(file, JSON.stringify(configuration)); // JSON is YAML
  try {
    const own = [...(otherProgram.getStore() ?? PROGRAM), command, '--config', file, ...(options.args ?? [])];
    const inPlace = options.hosts === undefined ? own : withHosts(options.hosts, own);
    const [program = '', ...args] = [...(options.enter ?? []), ...inPlace];
    const child = await startProcess({
      command: program,
      args,
      cwd: temporary.path, // where the defaults ./data and ./spool lie
      env: { ...process.env, ...options.env },
      ...(options.ready === undefined ? {} : { ready: options.ready }),
    });
    return {
      ...child,
      log: () => readLog(child.output()),
      async [Symbol.asyncDispose]() {
        await child[Symbol.asyncDispose]();
        await temporary[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await temporary[Symbol.asyncDispose]();
    throw error;
  }
}

/** Every step replaces the one before: the process that was started is the program in the end. */
function withHosts(file: string, command: readonly string[]): string[] {
  return ['unshare', '--mount', 'sh', '-c', 'mount --bind "$0" /etc/hosts && exec "$@"', file, ...command];
}

/** `kube-registry registry`, ready, on free ports. `registry` is the configuration's key of that
 *  name; `rest` holds further top-level keys, such as `log`. */
export async function startRegistry(
  registry: Record<string, unknown> = {},
  options: ProgramOptions = {},
  rest: Record<string, Record<string, unknown>> = {},
): Promise<ServingProgram> {
  return startServing('registry', { ...rest, registry: { ...(await freeAddresses()), ...registry } }, options);
}

/** `kube-registry agent`, ready, on free ports; `rest` holds further top-level keys, such as
 *  registry.upstreams. */
export async function startAgent(
  agent: Record<string, unknown>,
  rest: Record<string, unknown> = {},
  options: ProgramOptions = {},
): Promise<ServingProgram> {
  return startServing('agent', { ...rest, agent: { ...(await freeAddresses()), ...agent } }, options);
}

export async function freeAddresses(): Promise<{ listen: string; admin: string }> {
  return { listen: `127.0.0.1:${await freePort()}`, admin: `127.0.0.1:${await freePort()}` };
}

async function startServing(
  command: string,
  configuration: Record<string, Record<string, unknown>>,
  options: ProgramOptions = {},
): Promise<ServingProgram> {
  const host = String(configuration[command]?.['listen']);
  const admin = `http://${String(configuration[command]?.['admin'])}`;
  const program = await startProgram(command, configuration, { ready: () => answersOk(`${admin}/readyz`), ...options });
  return { ...program, url: `http://${host}`, host, admin };
}

function readLog(output: string): LogLine[] {
  return output
    .split('\n')
    .filter((line) => line.startsWith('{') && line.endsWith('}'))
    .map((line) => JSON.parse(line) as LogLine);
}
