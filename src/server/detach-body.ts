import type { IncomingMessage, ServerResponse } from 'node:http';
import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import type { DetachedBytes, Detach } from '../io/detachable-body.ts';
import { descriptorOf, isPlainSocket, loadLibc, stopReading } from '../io/libc.ts';

/** Node reads shorter bodies, since a connection whose body is detached serves no further request. */
const MIN_BYTES = 2 ** 20;
/** fcntl(2) */
const F_DUPFD_CLOEXEC = 1030;

/** Lets a worker read a long body of plain HTTP straight from its socket. Node's parser does not see
 *  these bytes, and would take the next request for the body, so the connection closes after the
 *  response.
 *  @param begin called when the body is detached, before it is read
 *  @returns undefined: Node has to read this body */
export function detachOfRequest(request: IncomingMessage, response: ServerResponse, begin: () => void): Detach | undefined {
  const { headers, socket } = request;
  const size = Number(headers['content-length'] ?? 0);
  if (!(size >= MIN_BYTES) || headers['transfer-encoding'] !== undefined || !isPlainSocket(socket)) return undefined;

  return async (): Promise<DetachedBytes | undefined> => {
    const libc = await loadLibc();
    const own = descriptorOf(socket);
    if (libc === undefined || own === undefined || request.readableFlowing !== null) return undefined;
    const descriptor = libc.fcntl(own, F_DUPFD_CLOEXEC, 0);
    if (descriptor < 0) return undefined;

    begin();
    response.shouldKeepAlive = false;
    const begun = await takeRead(request);
    return {
      begun,
      descriptor,
      size,
      progressed: () => void socket.setTimeout(socket.timeout ?? 0),
      async disconnected() {
        socket.destroy();
        if (!response.closed) await once(response, 'close');
      },
    };
  };
}

/** Stops reading from the connection, for good. @returns what was read of the body */
async function takeRead(request: IncomingMessage): Promise<Uint8Array[]> {
  request._read = () => undefined; // it would read on
  await turn(); // Node's parser may be in the middle of what was read, and reading may be about to go on
  stopReading(request.socket);
  const read: Uint8Array[] = [];
  for (let bytes = next(request); bytes !== null; bytes = next(request)) read.push(bytes);
  return read;
}

function next(request: IncomingMessage): Uint8Array | null {
  return request.read() as Uint8Array | null;
}
