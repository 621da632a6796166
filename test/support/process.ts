import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface ProcessOptions {
  command: string;
  args?: readonly string[];
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** Called every 20 ms until it returns true: the server is ready. */
  ready?: () => Promise<boolean>;
}

export interface RunningProcess extends AsyncDisposable {
  pid: number;
  /** Its output so far, stdout and stderr together; the last 16 MiB. */
  output(): string;
  /** Its exit code, or the signal that ended it. */
  exited: Promise<number | NodeJS.Signals>;
  /** Sends SIGTERM, or another signal; resolves when the process has ended. */
  stop(signal?: NodeJS.Signals): Promise<number | NodeJS.Signals>;
  /** Bytes of memory: all resident memory, and the anonymous part of it. */
  memory(): Promise<{ resident: number; anonymous: number }>;
}

const OUTPUT_LIMIT = 16 * 1024 * 1024;
/** A busy machine takes long; the end of a process is noticed at once. */
const START_LIMIT_MS = 180_000;
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) {
    process.stderr.write(`left behind: ${child.spawnargs.join(' ')}\n`);
    process.exitCode = 1;
    child.kill('SIGKILL');
  }
});

/** Starts a program that dies with the test, however that ends.
 *  @throws Error: it ended, or was not ready within three minutes; its output is in the message */
export async function startProcess(options: ProcessOptions): Promise<RunningProcess> {
  // setpriv makes the kernel send the signal: an exit handler does not run when the test itself is
  // killed.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', options.command, ...(options.args ?? [])], {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  const output = collect(child);
  const exited = once(child, 'exit').then(([code, signal]: unknown[]) => {
    running.delete(child);
    return (code ?? signal) as number | NodeJS.Signals;
  });
  await once(child, 'spawn');
  const self = createHandle(child, exited, output);
  try {
    await untilReady(options, self);
    return self;
  } catch (error) {
    await self.stop('SIGKILL');
    throw error;
  }
}

/** A program that stops and starts again, as after a crash. */
export interface Service extends AsyncDisposable {
  /** The one that runs, or ran last. */
  current(): RunningProcess;
  /** SIGTERM, or another signal. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  /** @throws Error, as startProcess */
  start(): Promise<void>;
}

/** @throws Error, as startProcess */
export async function startService(options: ProcessOptions): Promise<Service> {
  let current = await startProcess(options);
  return {
    current: () => current,
    async stop(signal) {
      await current.stop(signal);
    },
    async start() {
      current = await startProcess(options);
    },
    [Symbol.asyncDispose]: () => current[Symbol.asyncDispose](),
  };
}

function createHandle(child: ChildProcess, exited: RunningProcess['exited'], output: () => string): RunningProcess {
  const pid = child.pid ?? 0;
  let stopped = false;
  void exited.then((how) => {
    // A test that fails because its server has ended should show why it ended.
    if (!stopped && how !== 0) process.stderr.write(`${child.spawnargs.join(' ')} ended by itself (${how}):\n${output().slice(-4096)}\n`);
  });
  async function stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | NodeJS.Signals> {
    stopped = true;
    child.kill(signal);
    return exited;
  }
  return {
    pid,
    output,
    exited,
    stop,
    memory: () => memoryOf(pid),
    async [Symbol.asyncDispose]() {
      const late = setTimeout(() => child.kill('SIGKILL'), 5000);
      await stop();
      clearTimeout(late);
    },
  };
}

function collect(child: ChildProcess): () => string {
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (chunk: string) => {
      text = (text + chunk).slice(-OUTPUT_LIMIT);
    });
  }
  return () => text;
}

async function untilReady(options: ProcessOptions, self: RunningProcess): Promise<void> {
  const { ready } = options;
  if (ready === undefined) return;
  const ended = self.exited.then((code) => ({ code }));
  const limit = performance.now() + START_LIMIT_MS;
  while (!(await ready())) {
    const end = await Promise.race([ended, sleep(20)]);
    if (end !== undefined) throw new Error(`${options.command} ended at once with ${end.code}:\n${self.output()}`);
    if (performance.now() > limit) throw new Error(`${options.command} does not become ready:\n${self.output()}`);
  }
}

/** True when a GET of the URL is answered with 200. */
export async function answersOk(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(5000) });
    await response.body?.cancel();
    return response.status === 200;
  } catch (error) {
    if (error instanceof TypeError || (error as Error).name === 'TimeoutError') return false; // refused, reset, silent
    throw error;
  }
}

/** True when something accepts connections at a `host:port`, or at the path of a socket. */
export function accepts(address: string): Promise<boolean> {
  const [host = '', port] = address.split(':');
  const socket = port === undefined ? connect(address) : connect(Number(port), host);
  return new Promise((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
  }).finally(() => socket.destroy()) as Promise<boolean>;
}

/** Halts a process; resolves when none of its threads runs any more: until then it may still
 *  answer. SIGCONT continues it. */
export async function halt(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  for (;;) {
    const threads = await readdir(`/proc/${pid}/task`);
    const states = await Promise.all(threads.map((thread) => readFile(`/proc/${pid}/task/${thread}/stat`, 'utf8').catch(() => ') T')));
    if (states.every((stat) => stat.slice(stat.lastIndexOf(')') + 2).startsWith('T'))) return;
    await sleep(5);
  }
}

async function memoryOf(pid: number): Promise<{ resident: number; anonymous: number }> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const bytes = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024;
  return { resident: bytes('VmRSS'), anonymous: bytes('RssAnon') };
}
