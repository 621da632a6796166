import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../../telemetry/log.ts';
import { ClashError } from '../subscription/document.ts';
import type { Redactor } from '../subscription/redact.ts';

export interface MihomoOptions {
  /** The program: a path, or a name to look up in PATH. */
  binary: string;
  /** Its home: it reads and writes no other files. */
  directory: string;
  log: Log;
  redactor: Redactor;
  env: NodeJS.ProcessEnv;
}

/** A running mihomo. */
export interface MihomoProcess {
  pid: number | undefined;
  /** Resolves when it has ended, with its exit code or the signal that ended it. Never rejects. */
  exited: Promise<number | NodeJS.Signals | null>;
  /** Aborted when a port of its config is in use by another process. mihomo runs on without that
   *  port. */
  lacksPort: AbortSignal;
  /** Ends it: SIGTERM, and SIGKILL after `GRACE_MS`. Resolves when it has ended. */
  stop(): Promise<void>;
}

export interface Mihomo {
  version: string;
  /** Undefined: mihomo accepts the config in this file; else its complaint, without secrets. */
  test(file: string): Promise<string | undefined>;
  start(configFile: string): MihomoProcess;
  /** Compiles a rule set to `target`, in mihomo's own format mrs, which loads a hundred times as
   *  fast as YAML.
   *  @throws ClashError: there is no rule in it */
  compileRules(rules: { behavior: string; format: string; source: string; target: string }): Promise<void>;
}

const GRACE_MS = 5000;
/** How a log line of mihomo says that it cannot listen: the text of EADDRINUSE. */
const PORT_IN_USE = 'address already in use';
const TEST_LIMIT_MS = 60_000;
/** `mihomo -t` is run again when something else has ended it, such as a lack of memory. */
const TEST_ATTEMPTS = 3;
const TEST_PAUSE_MS = 500;
const COMPILE_LIMIT_MS = 120_000;
/** The environment variables that mihomo gets: the program path, Go's settings for other
 *  authorities, and the time zone. Others could move its paths and its controller (SAFE_PATHS,
 *  CLASH_OVERRIDE_…). */
const ENVIRONMENT = ['PATH', 'SSL_CERT_FILE', 'SSL_CERT_DIR', 'TZ'];

/** The mihomo program. @throws ClashError: it cannot be run */
export async function createMihomo({ binary, directory, log, redactor, env }: MihomoOptions): Promise<Mihomo> {
  const environment = {
    HOME: directory,
    ...Object.fromEntries(ENVIRONMENT.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]]))),
  };
  const version = await readVersion(binary, environment);

  function passOn(line: string, stopping: boolean): void {
    const { level, message } = parseLine(line);
    const clean = redactor.clean(message);
    if (stopping || level === 'info' || level === 'debug') log.debug({ event: 'mihomo-log' }, `mihomo: ${clean}`);
    else if (level === 'warning') log.warn({ event: 'mihomo-log' }, `mihomo: ${clean}`);
    else log.error({ event: 'mihomo-log' }, `mihomo: ${clean}`);
  }

  /** `interrupted`: it could not be run, or a signal has ended it, which says nothing about the
   *  config. */
  async function testOnce(file: string): Promise<{ complaint: string | undefined; interrupted: boolean }> {
    const { promise, resolve } = Promise.withResolvers<{ complaint: string | undefined; interrupted: boolean }>();
    const options = { env: environment, timeout: TEST_LIMIT_MS, maxBuffer: 2 ** 24 };
    execFile(binary, ['-t', '-d', directory, '-f', file], options, (error, stdout) => {
      if (error === null) return resolve({ complaint: undefined, interrupted: false });
      const lines = stdout.split('\n').map(parseLine);
      const complaints = lines.filter(({ level }) => level === 'error' || level === 'fatal').map(({ message }) => message);
      const tooSlow = error.killed === true;
      const silent = tooSlow ? 'mihomo takes more than a minute to read it' : `mihomo ends with ${error.code ?? error.signal}`;
      resolve({ complaint: redactor.clean(complaints.at(-1) ?? silent), interrupted: !tooSlow && typeof error.code !== 'number' });
    });
    return promise;
  }

  return {
    version,

    async test(file) {
      for (let attempt = 1; ; attempt++) {
        const { complaint, interrupted } = await testOnce(file);
        if (!interrupted || attempt === TEST_ATTEMPTS) return complaint;
        await delay(TEST_PAUSE_MS);
      }
    },

    start(configFile) {
      const child = spawn(binary, ['-d', directory, '-f', configFile], { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
      const exited = once(child, 'exit').then(
        ([code, by]) => (code ?? by) as number | NodeJS.Signals | null,
        () => null, // it could not be started
      );
      let stopping = false;
      const lacksPort = new AbortController();
      const read = (line: string): void => {
        if (line.includes(PORT_IN_USE)) lacksPort.abort();
        passOn(line, stopping);
      };
      for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', read);
      return {
        pid: child.pid,
        exited,
        lacksPort: lacksPort.signal,
        async stop() {
          stopping = true;
          child.kill('SIGTERM');
          const timer = setTimeout(() => child.kill('SIGKILL'), GRACE_MS).unref();
          await exited;
          clearTimeout(timer);
        },
      };
    },

    async compileRules({ behavior, format, source, target }) {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const args = ['convert-ruleset', behavior, format, source, target];
      execFile(binary, args, { env: environment, timeout: COMPILE_LIMIT_MS, maxBuffer: 2 ** 26 }, (error) => {
        if (error === null) resolve();
        else reject(new ClashError(`mihomo finds no ${behavior} rule in it`));
      });
      return promise;
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
    return { level, message: quoted ?? line }; // Go quotes some characters differently from JSON
  }
}
