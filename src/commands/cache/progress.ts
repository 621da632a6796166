import { MultiBar } from 'cli-progress';
import { formatBytes } from '../table.ts';

/** The progress of one item. */
export interface Bar {
  set(this: void, done: number, total: number): void;
  /** Removes the bar; `line` is printed in its place. */
  end(this: void, line?: string): void;
}
export interface Progress {
  start(name: string, unit?: 'bytes'): Bar;
  /** Restores the terminal. */
  stop(): void;
}

/** Progress bars on a terminal; elsewhere only the final lines. Written to stderr, because stdout
 *  is for results. */
export function createProgress(stderr: NodeJS.WriteStream): Progress {
  if (!stderr.isTTY) {
    const end = (line?: string) => line !== undefined && stderr.write(`${line}\n`);
    return { start: () => ({ set: () => undefined, end: (line) => void end(line) }), stop: () => undefined };
  }
  const bars = new MultiBar({
    stream: stderr,
    format: '{bar} {percentage}%  {amount}  {name}',
    barCompleteChar: '█',
    barIncompleteChar: '░',
    barsize: 24,
    hideCursor: true,
    clearOnComplete: true,
    gracefulExit: false,
  });
  return {
    start(name, unit) {
      const amount = (done: number, total: number) =>
        unit === 'bytes' ? `${formatBytes(done)} of ${formatBytes(total)}` : `${done} of ${total}`;
      const bar = bars.create(1, 0, { name, amount: '' });
      return {
        set(done, total) {
          bar.setTotal(Math.max(total, 1));
          bar.update(done, { name, amount: amount(done, total) });
        },
        end(line) {
          bar.stop();
          bars.remove(bar);
          if (line !== undefined) bars.log(`${line}\n`);
        },
      };
    },
    stop() {
      if (bars.isActive) bars.update(); // lines to print with the next frame
      bars.stop();
    },
  };
}
