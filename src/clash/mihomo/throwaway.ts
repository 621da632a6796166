import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import type { Fields } from '../../io/untrusted.ts';
import { encodeConfig } from '../config/encode.ts';

export interface ThrowawayOptions {
  /** The mihomo program: a path, or a name that PATH finds. */
  binary: string;
  /** The parent of the process's own folder, which is removed at the end. */
  directory: string;
  env: NodeJS.ProcessEnv;
  /** Matches the log line that ends mihomo's start. */
  started: RegExp;
}

/** A mihomo process without traffic: it opens no port, and its controller listens on a Unix
 *  socket in its own folder. */
export interface Throwaway extends AsyncDisposable {
  /** Writes a file into the process's folder. */
  write(name: string, content: string | Uint8Array): Promise<void>;
  /** Sends a request to the controller. @throws Error: mihomo has ended, or takes more than 30 s */
  call(method: 'GET' | 'PUT', path: string): Promise<{ status: number; text: string }>;
  /** Whether the process still runs. */
  running(): boolean;
  /** Whether the process exits without a signal, as after a panic, now or within a second. False:
   *  it runs, or a signal has ended it. */
  crashed(): Promise<boolean>;
}

const START_LIMIT_MS = 10_000;
const CALL_LIMIT_MS = 30_000;
const EXIT_LIMIT_MS = 1000;
const POLL_MS = 20;
/** In bytes. The path of a Unix socket has at most 107 (unix(7)). */
const MAX_SOCKET_PATH = 100;
const SOCKET = 'c.sock';
const PREFIX = 'reader-';

/** Removes the folders that killed processes have left in `directory`. */
export async function removeThrowaways(directory: string): Promise<void> {
  const names = await readdir(directory).catch(() => []);
  for (const name of names.filter((own) => own.startsWith(PREFIX))) await rm(join(directory, name), { recursive: true, force: true });
}

/** Starts mihomo with `config` and a controller. @throws Error: mihomo does not start */
export async function startThrowaway(config: Fields, { binary, directory, env, started }: ThrowawayOptions): Promise<Throwaway> {
  const parent = join(directory, `${PREFIX}XXXXXX`, SOCKET).length > MAX_SOCKET_PATH ? tmpdir() : directory;
  const home = await mkdtemp(join(parent, PREFIX));
  const socketPath = join(home, SOCKET);
  const write = (name: string, content: string | Uint8Array) => writeFile(join(home, name), content, { mode: 0o600 });
  await write('config.json', encodeConfig({ ...config, 'external-controller-unix': SOCKET }));
  const child = spawn(binary, ['-d', home, '-f', join(home, 'config.json')], {
    env: { HOME: home, PATH: env['PATH'] },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const ended = once(child, 'exit').catch(() => undefined); // the program cannot be run: `running` is false
  const running = () => child.pid !== undefined && child.exitCode === null && child.signalCode === null;

  async function dispose(): Promise<void> {
    if (running()) child.kill('SIGKILL');
    if (child.pid !== undefined) await ended;
    await rm(home, { recursive: true, force: true });
  }

  async function crashed(): Promise<boolean> {
    await Promise.race([ended, delay(EXIT_LIMIT_MS)]);
    return child.exitCode !== null;
  }

  const limit = setTimeout(() => child.kill('SIGKILL'), START_LIMIT_MS);
  for await (const line of createInterface({ input: child.stdout })) {
    if (!started.test(line)) continue;
    // mihomo opens the socket in the background: the log line may come first.
    while (running() && !(await accepts(socketPath))) await delay(POLL_MS);
    break;
  }
  clearTimeout(limit);
  child.stdout.resume();
  const call: Throwaway['call'] = (method, path) => callController(socketPath, method, path);
  if (running()) return { write, call, running, crashed, [Symbol.asyncDispose]: dispose };
  await dispose();
  throw new Error('the mihomo that reads entries does not start');
}

async function callController(socketPath: string, method: 'GET' | 'PUT', path: string): Promise<{ status: number; text: string }> {
  const sent = request({ socketPath, method, path, signal: AbortSignal.timeout(CALL_LIMIT_MS), agent: false });
  sent.end();
  const [response] = await once(sent, 'response');
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return { status: (response as { statusCode: number }).statusCode, text: Buffer.concat(chunks).toString() };
}

async function accepts(path: string): Promise<boolean> {
  const socket = connect({ path });
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false; // not yet, or no longer
  } finally {
    socket.destroy();
  }
}
