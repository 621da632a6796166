import { Writable } from 'node:stream';
import { createLog, type Log } from '../../src/telemetry/log.ts';

export interface CapturedLog {
  log: Log;
  /** The log entries so far. */
  entries(this: void): Record<string, unknown>[];
}

/** A log whose lines a test can read. */
export async function captureLog(level: 'debug' | 'info' | 'warn' = 'debug'): Promise<CapturedLog> {
  const lines: string[] = [];
  const output = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(String(chunk));
      done();
    },
  });
  const log = await createLog({ level, readable: false }, output);
  return { log, entries: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}
