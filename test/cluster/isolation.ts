import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, readdirSync, readFileSync } from 'node:fs';
import { rmdir } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Runs a command in network, process and mount namespaces of its own. Everything that it starts,
 *  adds or mounts ends with it, even if it is killed, and the network of this machine does not
 *  change. Only one such command runs at a time: control groups are not isolated, and a kubelet
 *  ends the pods of another kubelet that it finds there. Needs root.
 *  @param lock the file that all runs on this machine lock
 *  @returns its exit code */
export async function runIsolated(command: readonly string[], lock: string): Promise<number> {
  await using _held = await holdLock(lock);
  const groups = controlGroups();
  const flags = ['--net', '--mount', '--pid', '--fork', '--kill-child=KILL', '--mount-proc', '--'];
  // Hides the files of `ip netns`, so that those of this machine are not touched.
  const script = 'mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip link set lo up && exec "$@"';
  const child = spawn('unshare', [...flags, 'sh', '-c', script, 'sh', ...command], { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  for (const group of controlGroups().filter((path) => !groups.includes(path))) await removeGroup(group);
  return code ?? 1;
}

/** Waits until no other process holds the lock. The lock ends with this process at the latest. */
async function holdLock(file: string): Promise<AsyncDisposable> {
  // flock holds the lock until the input of `cat` ends.
  const holder = spawn('flock', [file, 'sh', '-c', 'echo held; cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(holder.stdout, 'data');
  return {
    async [Symbol.asyncDispose]() {
      holder.stdin.end();
      await once(holder, 'exit');
    },
  };
}

/** The control groups that the kubelet has created: the only part of a cluster that is not in a
 *  namespace. */
function controlGroups(): string[] {
  return globSync('/sys/fs/cgroup/{,*/}kubepods');
}

async function removeGroup(path: string): Promise<void> {
  const { stdout } = await run('find', [path, '-depth', '-type', 'd']);
  for (const directory of stdout.trim().split('\n')) await rmdir(directory);
}

/** The state of processes, network and mounts. */
export type Snapshot = Record<'processes' | 'mounts' | 'interfaces' | 'routes', readonly string[]>;

/** A snapshot of the namespaces of this process. */
export async function takeSnapshot(): Promise<Snapshot> {
  return {
    processes: runningProcesses(),
    mounts: readFileSync('/proc/self/mounts', 'utf8').trim().split('\n'),
    interfaces: lines(await run('ip', ['-oneline', 'link'])).map((line) => line.split(':')[1]?.trim() ?? ''),
    routes: [
      ...lines(await run('ip', ['route', 'show', 'table', 'all'])),
      ...lines(await run('ip', ['-6', 'route', 'show', 'table', 'all'])),
    ],
  };
}

/** The differences between `before` and `after`, in words. */
export function leftBehind(before: Snapshot, after: Snapshot): string[] {
  return (Object.keys(before) as (keyof Snapshot)[]).flatMap((kind) =>
    after[kind].filter((entry) => !before[kind].includes(entry)).map((entry) => `${kind}: ${entry}`),
  );
}

function lines({ stdout }: { stdout: string }): string[] {
  return stdout.trim().split('\n').filter(Boolean);
}

/** The running processes, `PID COMMAND`, without zombies and kernel threads. */
export function runningProcesses(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
        return command === '' ? [] : [`${pid} ${command}`];
      } catch {
        return []; // it has ended in the meantime
      }
    });
}
