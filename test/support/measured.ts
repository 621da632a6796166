import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { peakOf } from '../../bench/peak.ts';

export interface MeasuredRun {
  code: number;
  stdout: string;
  stderr: string;
  seconds: number;
  /** The peak resident memory, in bytes. */
  peak: number;
}

/** How often the peak is read, in ms: the kernel keeps it, but not after the process has ended. */
const STEP_MS = 20;

/** Runs a command to its end. */
export async function runMeasured(command: string, args: readonly string[]): Promise<MeasuredRun> {
  const started = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const output = Promise.all([text(child.stdout), text(child.stderr)]);
  const ended = once(child, 'close') as Promise<[number]>;
  let isOver = false;
  void ended.then(() => (isOver = true));
  let peak = 0;
  while (!isOver) {
    peak = Math.max(peak, await peakOf(child.pid ?? 0).catch(() => 0)); // it may have just ended
    await Promise.race([delay(STEP_MS), ended]);
  }
  const seconds = (performance.now() - started) / 1000;
  const [[code], [stdout, stderr]] = await Promise.all([ended, output]);
  return { code, stdout, stderr, seconds, peak };
}
