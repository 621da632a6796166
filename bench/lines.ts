import { execFile, execFileSync } from 'node:child_process';
import { constants } from 'node:os';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Simulates the machines of a rack on one machine: one network namespace each, connected by a
 *  bridge, with a bandwidth limit in each direction. */
export interface Lines extends AsyncDisposable {
  /** On the bridge itself, with unlimited bandwidth. */
  outside: string;
  machines: Machine[];
}

export interface Machine {
  address: string;
  /** The command prefix that runs a command on this machine. */
  enter: readonly string[];
}

const SIGNALS = ['SIGTERM', 'SIGINT'] as const;
const BRIDGE = 'krlines';
const NETWORK = '10.77.0';
/** The burst that a connection may send at once, and how long it may queue. */
const SHAPE = ['burst', '64kb', 'latency', '50ms'];

/** Needs root and iproute2. Ends the process on SIGTERM and SIGINT, since only then everything can
 *  be removed. */
export async function startLines(count: number, megabits: number): Promise<Lines> {
  const ip = (...words: string[]) => run('ip', words);
  await ip('link', 'add', BRIDGE, 'type', 'bridge');
  await using stack = new AsyncDisposableStack();
  stack.use(removedAtExit());
  await ip('addr', 'add', `${NETWORK}.254/24`, 'dev', BRIDGE);
  await ip('link', 'set', BRIDGE, 'up');
  const machines: Machine[] = [];
  for (let index = 0; index < count; index++) {
    const name = `${BRIDGE}${index + 1}`;
    const inside = (...words: string[]) => ip('-n', name, ...words);
    await ip('netns', 'add', name);
    await ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'line', 'netns', name);
    await ip('link', 'set', name, 'master', BRIDGE, 'up');
    const address = `${NETWORK}.${index + 1}`;
    await inside('addr', 'add', `${address}/24`, 'dev', 'line');
    await inside('link', 'set', 'line', 'up');
    await inside('link', 'set', 'lo', 'up');
    const shape = ['root', 'tbf', 'rate', `${megabits}mbit`, ...SHAPE];
    await run('tc', ['qdisc', 'add', 'dev', name, ...shape]);
    await run('tc', ['-n', name, 'qdisc', 'add', 'dev', 'line', ...shape]);
    machines.push({ address, enter: ['nsenter', `--net=/run/netns/${name}`, '--'] });
  }
  const owned = stack.move();
  return { outside: `${NETWORK}.254`, machines, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Removes all machines and the bridge when it is disposed, or when the process exits or is ended
 *  by a signal. */
function removedAtExit(): Disposable {
  const exits = SIGNALS.map((signal) => [signal, () => process.exit(128 + constants.signals[signal])] as const);
  for (const [signal, exit] of exits) process.once(signal, exit);
  process.once('exit', remove);
  return {
    [Symbol.dispose]() {
      for (const [signal, exit] of exits) process.off(signal, exit);
      process.off('exit', remove);
      remove();
    },
  };
}

function remove(): void {
  const ip = (...words: string[]): string => execFileSync('ip', words, { encoding: 'utf8' });
  const names = ip('netns', 'list').match(new RegExp(String.raw`^${BRIDGE}\d+`, 'gm')) ?? [];
  // A namespace takes its end of a line with it, and that the other end, but only after a while.
  for (const name of names) {
    ip('link', 'del', name);
    ip('netns', 'del', name);
  }
  ip('link', 'del', BRIDGE);
}
