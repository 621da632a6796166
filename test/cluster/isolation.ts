import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, readdirSync, readFileSync } from 'node:fs';
import { rmdir } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Runs a command with a network, processes and mounts of its own: whatever it starts, adds or
 *  mounts goes with it, even when it is killed, and nothing of this machine's network changes.
 *  Needs root.
 *  @returns its exit code */
export async function runIsolated(command: readonly string[]): Promise<number> {
  const groups = controlGroups();
  const flags = ['--net', '--mount', '--pid', '--fork', '--kill-child=KILL', '--mount-proc', '--'];
  // Where `ip netns` keeps its files: this machine's own are not touched.
  const script = 'mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && ip link set lo up && exec "$@"';
  const child = spawn('unshare', [...flags, 'sh', '-c', script, 'sh', ...command], { stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null];
  for (const group of controlGroups().filter((path) => !groups.includes(path))) await removeGroup(group);
  return code ?? 1;
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

/** Without zombies, and without kernel threads. */
function runningProcesses(): string[] {
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
