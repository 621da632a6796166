import { randomInt } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type ListenOptions, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

export interface TemporaryDirectory extends AsyncDisposable {
  path: string;
}

/** The parent of directories in memory. */
export const IN_MEMORY = '/dev/shm';

/** An empty folder that is removed with its content. */
export async function temporaryDirectory(parent = tmpdir()): Promise<TemporaryDirectory> {
  const path = await mkdtemp(join(parent, 'kube-registry-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true, maxRetries: 3 }) };
}

/** A free port of 127.0.0.1, reserved while this process lives. It is below the ports that
 *  the kernel gives to connections, so that a server that is stopped for a while finds its port
 *  free again. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(12_000, 24_000);
    // Other test processes look for ports too, and a server opens its own only after a while: the
    // mark is an abstract socket, which ends with the process.
    const mark = await tryListen({ path: `\0kube-registry test port ${port}` });
    if (mark === undefined) continue;
    mark.unref();
    const probe = await tryListen({ port, host: '127.0.0.1' });
    if (probe === undefined) continue;
    await promisify(probe.close.bind(probe))();
    return port;
  }
}

/** Undefined: the port is in use. */
function tryListen(address: ListenOptions): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => (error.code === 'EADDRINUSE' ? resolve(undefined) : reject(error)));
    server.listen(address, () => resolve(server));
  });
}
