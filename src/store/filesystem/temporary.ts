import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readFile, readdir, readlink, rename, rm, stat, utimes } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { makeDirectory } from '../../io/make-directory.ts';
import { absentAsUndefined } from '../../io/absent.ts';

const FOLDER = '.tmp';
/** The prefix of the abstract socket (unix(7)) on which a process listens; the name of its
 *  directory follows. All containers of the pod share a network namespace, so each can see whether
 *  a process listens there. */
const LIVENESS = '\0kube-registry.';
/** How often a process updates the time of its directory, for processes on other machines, which
 *  cannot see whether it runs. */
const HEARTBEAT_MS = 60_000;
/** The directory of a process on another machine is removed after this long without a heartbeat. */
const GIVEN_UP_MS = 10 * 60_000;
const CONNECT_TIMEOUT_MS = 2000;

export interface TemporaryDirectory {
  path: string;
  /** @returns a path in it that no other call returns */
  file(): string;
  /** Removes the directory with everything in it but files that a later process can use. */
  close(): Promise<void>;
}

export interface TemporaryDirectoryOptions {
  /** The name of a folder in the directory whose files a later process can use. This process takes
   *  them over from processes that have ended. */
  inherited?: string | undefined;
}

/** Creates a directory for this process under `<directory>/.tmp`, for partly written files.
 *  Directories of processes that have ended are removed first, including those of former containers
 *  of the same pod, since their files count against the volume's limit. A process on another
 *  machine counts as running until it misses its heartbeats.
 *  @throws the file system's errors */
export async function createTemporaryDirectory(
  directory: string,
  { inherited }: TemporaryDirectoryOptions = {},
): Promise<TemporaryDirectory> {
  const root = join(directory, FOLDER);
  const self = await identify();
  const name = `${self.network}-${self.place}.${self.pid}.${self.started}.${randomUUID().slice(0, 8)}`;
  const path = join(root, name);
  await removeAbandoned(root, self, inherited); // first: the disk may be full of it
  const liveness = await listenAs(name);
  try {
    await makeDirectory(path);
    if (inherited !== undefined) await inherit(root, self, { folder: inherited, into: join(path, inherited) });
  } catch {
    await removeAbandoned(root, self);
    await makeDirectory(path);
  }

  const timer = setInterval(() => {
    // A failure is retried at the next beat; a write that needs the directory reports the cause.
    beat(path).then(
      () => removeAbandoned(root, self),
      () => undefined,
    );
  }, HEARTBEAT_MS);
  timer.unref();

  let count = 0;
  return {
    path,
    file: () => join(path, `${++count}`),
    async close() {
      clearInterval(timer);
      liveness?.close();
      await removeAllBut(path, inherited);
    },
  };
}

async function beat(path: string): Promise<void> {
  await mkdir(path, { recursive: true });
  const now = new Date();
  await utimes(path, now, now);
}

/** Listens under the name of a process's directory until the process ends. Undefined: this machine
 *  has no abstract sockets. */
async function listenAs(name: string): Promise<Server | undefined> {
  const server = createServer((socket) => socket.destroy());
  try {
    server.listen(LIVENESS + name);
    await once(server, 'listening');
    server.on('error', () => undefined); // accepting may fail, for example for want of file descriptors
    return server.unref();
  } catch {
    return undefined;
  }
}

/** Whether a process of this network namespace listens under a directory's name; 'unknown' if that
 *  cannot be checked. */
async function isListening(name: string): Promise<boolean | 'unknown'> {
  const socket = connect(LIVENESS + name);
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(CONNECT_TIMEOUT_MS) });
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED' ? false : 'unknown';
  } finally {
    socket.destroy();
  }
}

interface Identity {
  /** Identifies the boot and the network namespace, within which an abstract socket is visible;
   *  empty if unknown. */
  network: string;
  /** Identifies the boot and the PID namespace, within which process numbers are unique. */
  place: string;
  pid: number;
  /** In clock ticks since boot: process numbers are reused, above all in containers. Empty if
   *  unknown. */
  started: string;
}

async function identify(): Promise<Identity> {
  const [boot, namespace, network] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => ''),
    readlink('/proc/self/ns/pid').catch(() => ''),
    readlink('/proc/self/ns/net').catch(() => ''),
  ]);
  return {
    network: boot === '' || network === '' ? '' : shortHash(`${boot} ${network}`),
    place: shortHash(`${hostname()} ${boot} ${namespace}`),
    pid: process.pid,
    started: (await startOf(process.pid)) ?? '',
  };
}

function shortHash(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 12);
}

/** Field 22 of /proc/<pid>/stat (proc(5)); the name before it may contain any character. Undefined:
 *  there is no such process. */
async function startOf(pid: number): Promise<string | undefined> {
  const line = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return line.slice(line.lastIndexOf(')') + 2).split(' ')[19];
}

/** The directories of processes that have ended. */
async function* abandoned(root: string, self: Identity): AsyncGenerator<string> {
  for (const name of (await absentAsUndefined(readdir(root))) ?? []) {
    const path = join(root, name);
    if (!(await isAlive(path, name, self))) yield path;
  }
}

/** @param but the name of a folder to keep in each of them */
async function removeAbandoned(root: string, self: Identity, but?: string): Promise<void> {
  for await (const path of abandoned(root, self)) await removeAllBut(path, but);
}

/** Removes a directory, or all that is in it but one folder that is not empty. */
async function removeAllBut(path: string, folder: string | undefined): Promise<void> {
  const kept = folder === undefined ? [] : await absentAsUndefined(readdir(join(path, folder)));
  if (folder === undefined || kept === undefined || kept.length === 0) return rm(path, { recursive: true, force: true });
  for (const name of await readdir(path)) if (name !== folder) await rm(join(path, name), { recursive: true, force: true });
}

/** Moves the files of `folder` in the directories of ended processes to another folder, and removes
 *  those directories. Another process may do the same now: each file goes to one of them. */
async function inherit(root: string, self: Identity, { folder, into }: { folder: string; into: string }): Promise<void> {
  for await (const path of abandoned(root, self)) {
    for (const name of (await absentAsUndefined(readdir(join(path, folder)))) ?? []) {
      await makeDirectory(into);
      await absentAsUndefined(rename(join(path, folder, name), join(into, name)));
    }
    await rm(path, { recursive: true, force: true });
  }
}

/** Former releases wrote only the place, without the network namespace. */
async function isAlive(path: string, name: string, self: Identity): Promise<boolean> {
  const [owner = '', pid, started] = name.split('.');
  const [network, place] = owner.includes('-') ? owner.split('-') : [undefined, owner];
  if (place === self.place && started !== '') return (await startOf(Number(pid))) === started;
  if (self.network !== '' && network === self.network) {
    const listening = await isListening(name);
    if (listening !== 'unknown') return listening;
  }
  const seen = await stat(path).catch(() => undefined);
  return seen === undefined || Date.now() - seen.mtimeMs < GIVEN_UP_MS;
}
