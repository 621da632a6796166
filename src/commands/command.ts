import type { Config } from '../config/schema.ts';
import type { Log } from '../telemetry/log.ts';

/** The parts of the process that a command uses. */
export interface Host {
  config: Config;
  log: Log;
  /** Aborted by SIGTERM and SIGINT: stop accepting work, let running work end, and return. */
  stop: AbortSignal;
  stdout: NodeJS.WriteStream;
  stderr: NodeJS.WriteStream;
  stdin: NodeJS.ReadStream;
  env: NodeJS.ProcessEnv;
}
