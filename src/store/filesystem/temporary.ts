import { createHash, randomUUID } from 'node:crypto';
import { mkdir, readFile, readdir, readlink, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { makeDirectory } from '../../io/make-directory.ts';
import { absentAsUndefined } from '../../io/absent.ts';

const FOLDER = '.tmp';
/** Milliseconds. How often a process says that it lives, for those who cannot look it up: on another machine, in another
 *  container over the same volume. */
const HEARTBEAT = 60_000;
/** Milliseconds without a heartbeat after which what such a process left is removed. */
const GIVEN_UP = 10 * 60_000;

export interface TemporaryDirectory {
  path: string;
  /** A name in it that nobody else uses. */
  file(): string;
  /** Removes it with all that is in it. */
  close(): Promise<void>;
}

/** A directory of this process under `<directory>/.tmp`, for what is half written. What former processes left there goes
 *  now, what belongs to running ones stays; those of other machines count as running until they miss their heartbeats.
 *  @throws the file system's errors */
export async function createTemporaryDirectory(directory: string): Promise<TemporaryDirectory> {
  const root = join(directory, FOLDER);
  const self = await identify();
  const path = join(root, `${self.place}.${self.pid}.${self.started}.${randomUUID().slice(0, 8)}`);
  await removeAbandoned(root, self.place); // first: the disk may be full of it
  await makeDirectory(path);

  const timer = setInterval(() => {
    // What cannot be done now is done at the next beat; a write that needs the directory says what is wrong with it.
    beat(path).then(
      () => removeAbandoned(root, self.place),
      () => undefined,
    );
  }, HEARTBEAT);
  timer.unref();

  let count = 0;
  return {
    path,
    file: () => join(path, `${++count}`),
    async close() {
      clearInterval(timer);
      await rm(path, { recursive: true, force: true });
    },
  };
}

async function beat(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  const now = new Date();
  await utimes(path, now, now);
}

interface Identity {
  /** Where process numbers mean what they mean here: the boot and the PID namespace. */
  place: string;
  pid: number;
  /** In clock ticks since boot: numbers are used again, above all in containers. Empty: not to be had here. */
  started: string;
}

async function identify(): Promise<Identity> {
  const [boot, namespace] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => ''),
    readlink('/proc/self/ns/pid').catch(() => ''),
  ]);
  const place = createHash('sha256').update(`${hostname()} ${boot} ${namespace}`).digest('hex').slice(0, 12);
  return { place, pid: process.pid, started: (await startOf(process.pid)) ?? '' };
}

/** Field 22 of /proc/<pid>/stat (proc(5)); the name before it may hold anything. Undefined: no such process. */
async function startOf(pid: number): Promise<string | undefined> {
  const line = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return line.slice(line.lastIndexOf(')') + 2).split(' ')[19];
}

async function removeAbandoned(root: string, place: string): Promise<void> {
  for (const name of (await absentAsUndefined(readdir(root))) ?? []) {
    const path = join(root, name);
    if (!(await isAlive(path, name, place))) await rm(path, { recursive: true, force: true });
  }
}

async function isAlive(path: string, name: string, place: string): Promise<boolean> {
  const [owner, pid, started] = name.split('.');
  if (owner === place && started !== '') return (await startOf(Number(pid))) === started;
  const seen = await stat(path).catch(() => undefined);
  return seen === undefined || Date.now() - seen.mtimeMs < GIVEN_UP;
}
