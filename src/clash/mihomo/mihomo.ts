import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../../telemetry/log.ts';
import { ClashError } from '../subscription/document.ts';
import type { Redactor } from '../subscription/redact.ts';
import { backoff } from '../../async/backoff.ts';

export interface MihomoOptions {
  /** The program. */
  binary: string;
  /** Its home: it reads and writes no other files. */
  directory: string;
  /** What it runs with. */
  configFile: string;
  log: Log;
  redactor: Redactor;
  env: NodeJS.ProcessEnv;
}

export interface Mihomo {
  version: string;
  /** Undefined: mihomo understands the file; else what it says, without secrets. */
  test(file: string): Promise<string | undefined>;
  /** Runs it, again whenever it ends, until `signal`; resolves when it has gone. */
  run(signal: AbortSignal): Promise<void>;
  pid(): number | undefined;
  restarts(): number;
  /** The last errors that it told, without secrets. */
  lastErrors(): string[];
}

/** Milliseconds. */
const FIRST_PAUSE = 250;
const LAST_PAUSE = 15_000;
/** One that lived this long did not die of its start. */
const STEADY = 60_000;
const GRACE = 5000;
const KEPT_ERRORS = 20;
/** Where programs are, Go's way to trust other authorities, and the time zone: all that mihomo gets of the environment. More of it
 *  would move its paths and its controller (SAFE_PATHS, CLASH_OVERRIDE_…). */
const ENVIRONMENT = ['PATH', 'SSL_CERT_FILE', 'SSL_CERT_DIR', 'TZ'];

/** mihomo as a child. @throws ClashError: the program cannot be run */
export async function createMihomo({ binary, directory, configFile, log, redactor, env }: MihomoOptions): Promise<Mihomo> {
  const environment = {
    HOME: directory,
    ...Object.fromEntries(ENVIRONMENT.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]]))),
  };
  const version = await readVersion(binary, environment);
  const errors: string[] = [];
  let child: ChildProcess | undefined;
  let restarts = 0;
  let stopping = false;

  function hear(line: string): void {
    const { level, message } = parseLine(line);
    const clean = redactor.clean(message);
    if (level === 'error' || level === 'fatal') errors.splice(0, errors.length, ...errors.slice(1 - KEPT_ERRORS), clean);
    if (stopping) log.debug(`mihomo: ${clean}`);
    else if (level === 'warning') log.warn(`mihomo: ${clean}`);
    else if (level === 'error' || level === 'fatal') log.error(`mihomo: ${clean}`);
    else log.debug(`mihomo: ${clean}`);
  }

  async function runOnce(signal: AbortSignal): Promise<void> {
    const own = spawn(binary, ['-d', directory, '-f', configFile], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
    child = own;
    const ended = once(own, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
    for (const stream of [own.stdout, own.stderr]) createInterface({ input: stream }).on('line', hear);
    const stop = () => {
      stopping = true;
      own.kill('SIGTERM');
      setTimeout(() => own.kill('SIGKILL'), GRACE).unref();
    };
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    try {
      const [code, by] = await ended;
      if (!signal.aborted) log.error({ code: code ?? by }, 'mihomo has ended, and is started again');
    } finally {
      signal.removeEventListener('abort', stop);
      child = undefined;
    }
  }

  return {
    version,
    pid: () => child?.pid,
    restarts: () => restarts,
    lastErrors: () => [...errors],

    async test(file) {
      const { promise, resolve } = Promise.withResolvers<string | undefined>();
      execFile(binary, ['-t', '-d', directory, '-f', file], { env: environment, timeout: 60_000, maxBuffer: 2 ** 24 }, (error, stdout) => {
        if (error === null) return resolve(undefined);
        const lines = stdout.split('\n').map(parseLine);
        const told = lines.filter(({ level }) => level === 'error' || level === 'fatal').map(({ message }) => message);
        resolve(redactor.clean(told.at(-1) ?? (error.killed === true ? 'it takes more than a minute' : `mihomo ends with ${error.code}`)));
      });
      return promise;
    },

    async run(signal) {
      let quickEnds = 0;
      while (!signal.aborted) {
        const started = performance.now();
        await runOnce(signal);
        if (signal.aborted) return;
        restarts++;
        quickEnds = performance.now() - started > STEADY ? 0 : quickEnds + 1;
        const pause = backoff(quickEnds, { baseMs: FIRST_PAUSE, capMs: LAST_PAUSE });
        await delay(pause, undefined, { signal }).catch(() => undefined); // stopped
      }
    },
  };
}

async function readVersion(binary: string, env: NodeJS.ProcessEnv): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  execFile(binary, ['-v'], { env, timeout: 20_000 }, (error, stdout) => {
    if (error === null) resolve(/\bv(\d+\.\d+\.\d+)/.exec(stdout)?.[1] ?? 'unknown');
    else reject(new ClashError(`clash.mihomo: ${JSON.stringify(binary)} cannot be run (${error.code}): is it the path of mihomo?`));
  });
  return promise;
}

/** `time="…" level=info msg="…"`. */
function parseLine(line: string): { level: string; message: string } {
  const [, level = 'info', quoted] = /^time="[^"]*" level=(\w+) msg=(".*")$/.exec(line) ?? [];
  try {
    return { level, message: quoted === undefined ? line : (JSON.parse(quoted) as string) };
  } catch {
    return { level, message: quoted ?? line }; // Go quotes some characters otherwise than JSON
  }
}
