import { join } from 'node:path';
import { accepts, startService, type Service } from '../support/process.ts';
import { freePort, temporaryDirectory } from '../support/temporary.ts';
import { toolPath } from '../tools/tools.ts';

/** An S3 server of another project, with keys that may create buckets. */
export interface S3Server extends AsyncDisposable {
  endpoint: string;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
  /** Gone from one moment to the next, as in an outage. */
  stop(): Promise<void>;
  /** On the same port, with the same content. */
  start(): Promise<void>;
}

export const KEYS = { region: 'us-east-1', accessKeyId: 'test-access-key', secretAccessKey: 'test-secret-key' };

/** A server that runs as one process and stores its data in the folder of `dispose`. */
export function serverOf(port: number, service: Service, dispose: () => Promise<void>): S3Server {
  return {
    ...KEYS,
    endpoint: `http://127.0.0.1:${port}`,
    stop: () => service.stop('SIGKILL'),
    start: () => service.start(),
    async [Symbol.asyncDispose]() {
      await service[Symbol.asyncDispose]();
      await dispose();
    },
  };
}

export async function startGofakes3(): Promise<S3Server> {
  const temporary = await temporaryDirectory();
  const port = await freePort();
  const address = `127.0.0.1:${port}`;
  const service = await startService({
    command: await toolPath('gofakes3'),
    args: ['-host', address, '-backend', 'bolt', '-bolt.db', join(temporary.path, 'objects.db'), '-quiet'],
    ready: () => accepts(address),
  });
  return serverOf(port, service, () => Promise.resolve(temporary[Symbol.asyncDispose]()));
}
