import type { Config } from '../config/schema.ts';
import type { Log } from '../telemetry/log.ts';

/** What a command gets of the process that it runs in. */
export interface Host {
  config: Config;
  log: Log;
  /** Aborted by SIGTERM and SIGINT: stop taking work, let what runs end, return. */
  stop: AbortSignal;
  stdout: NodeJS.WriteStream;
  stderr: NodeJS.WriteStream;
  stdin: NodeJS.ReadStream;
  env: NodeJS.ProcessEnv;
}
