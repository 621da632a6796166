import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { toolPath } from '../tools/tools.ts';
import { accepts, halt, startProcess, type RunningProcess } from './process.ts';
import { freePort, temporaryDirectory } from './temporary.ts';

export interface Versitygw extends AsyncDisposable {
  endpoint: string;
  region: string;
  /** A bucket that is there. */
  bucket: string;
  accessKeyId: string;
  secretAccessKey: string;
  /** Where the bucket's objects lie as files. */
  directory: string;
  /** Gone from one moment to the next, as in an outage. */
  stop(): Promise<void>;
  /** On the same port, with the same content. */
  start(): Promise<void>;
  /** There, but silent: the process is halted, connections stay. */
  halt(): Promise<void>;
  resume(): void;
}

const REGION = 'us-east-1';
const BUCKET = 'images';
const ACCESS_KEY_ID = 'test-access-key';
const SECRET_ACCESS_KEY = 'test-secret-key';

/** An S3 server over a temporary folder. */
export async function startVersitygw(options: { host?: string; port?: number } = {}): Promise<Versitygw> {
  const temporary = await temporaryDirectory();
  const address = `${options.host ?? '127.0.0.1'}:${options.port ?? (await freePort())}`;
  const root = join(temporary.path, 'buckets');
  const directory = join(root, BUCKET);
  await mkdir(directory, { recursive: true });
  const command = await toolPath('versitygw');
  let child: RunningProcess | undefined;

  async function start(): Promise<void> {
    child ??= await startProcess({
      command,
      args: ['--port', address, '--region', REGION, '--keep-alive', '--quiet', 'posix', '--sidecar', await sidecar(temporary.path), root],
      env: { ...process.env, ROOT_ACCESS_KEY: ACCESS_KEY_ID, ROOT_SECRET_KEY: SECRET_ACCESS_KEY },
      ready: () => accepts(address),
    });
  }
  async function stop(): Promise<void> {
    await child?.stop('SIGKILL');
    child = undefined;
  }
  await start();
  return {
    endpoint: `http://${address}`,
    region: REGION,
    bucket: BUCKET,
    accessKeyId: ACCESS_KEY_ID,
    secretAccessKey: SECRET_ACCESS_KEY,
    directory,
    start,
    stop,
    halt: async () => void (child !== undefined && (await halt(child.pid))),
    resume: () => void (child !== undefined && process.kill(child.pid, 'SIGCONT')),
    async [Symbol.asyncDispose]() {
      await stop();
      await temporary[Symbol.asyncDispose]();
    },
  };
}

/** Metadata in files next to the objects: not every temporary folder has extended attributes. */
async function sidecar(directory: string): Promise<string> {
  const path = join(directory, 'metadata');
  await mkdir(path, { recursive: true });
  return path;
}
