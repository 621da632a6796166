import { MultiBar } from 'cli-progress';
import { formatBytes } from '../table.ts';

/** How far something has come. */
export interface Bar {
  set(this: void, done: number, total: number): void;
  /** Takes it away; `line` stays in its place. */
  end(this: void, line?: string): void;
}
export interface Progress {
  start(name: string, unit?: 'bytes'): Bar;
  /** Gives the terminal back. */
  stop(): void;
}

/** Bars on a terminal; elsewhere only the lines that are to stay. On stderr: stdout is for what was
 *  asked for. */
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
      if (bars.isActive) bars.update(); // lines that wait for the next frame
      bars.stop();
    },
  };
}
