import { Socket } from 'node:net';
import { constants } from 'node:os';
import { setImmediate as turn } from 'node:timers/promises';
import { TLSSocket } from 'node:tls';
import type { KoffiFunc } from 'koffi';
import type { FileStretch } from '../oci/registry.ts';

interface Libc {
  sendfile: KoffiFunc<(to: number, from: number, offset: [number], count: number) => number>;
  preadv2(this: void, fd: number, vectors: Buffer, count: number, offset: number, flags: number): number;
  fcntl(this: void, fd: number, command: number, type: 'int', argument: number): number;
  close(this: void, fd: number): number;
  errno(this: void): number;
  /** A struct iovec of all of `piece`, and one of its first byte. */
  vectors: { whole: Buffer; first: Buffer };
  piece: Buffer;
}

/** Bytes that one call sends at most: so long it may keep the event loop, or a slow disk a thread of the pool. */
const MAX_CALL = 2 ** 20;
/** Bytes that are written instead where the connection takes no more for now. */
const PIECE = 2 ** 14;
/** Duplicates a descriptor, which no child process inherits (fcntl(2)). */
const F_DUPFD_CLOEXEC = 1030;
/** Reads only what is in memory (preadv2(2)). */
const RWF_NOWAIT = 8;

let libc: Promise<Libc | undefined> | undefined;

/** Bound when the first file is sent: other commands never need it. Elsewhere than on Linux sendfile is another function. */
async function bindLibc(): Promise<Libc | undefined> {
  if (process.platform !== 'linux') return undefined;
  try {
    const { address, errno, load } = await import('koffi');
    const library = load(null);
    const piece = Buffer.allocUnsafeSlow(PIECE);
    const vector = (length: number): Buffer => Buffer.from(BigUint64Array.of(address(piece), BigInt(length)).buffer);
    return {
      sendfile: library.func('int64_t sendfile(int to, int from, _Inout_ int64_t *offset, size_t count)') as Libc['sendfile'],
      preadv2: library.func('int64_t preadv2(int fd, const void *vectors, int count, int64_t offset, int flags)') as Libc['preadv2'],
      fcntl: library.func('int fcntl(int fd, int command, ...)') as Libc['fcntl'],
      close: library.func('int close(int fd)') as Libc['close'],
      errno,
      vectors: { whole: vector(PIECE), first: vector(1) },
      piece,
    };
  } catch {
    return undefined; // no build for this processor
  }
}

/** Sends what it can of a stretch of a file by sendfile(2), which copies nothing. It never waits for the client; what is not in memory is waited for in
 *  the thread pool.
 *  @returns how many bytes the kernel took; or, where the connection takes no more for now, the next few, to be written to it: it is the socket
 *           that can wait. Undefined: this connection takes no file, or has gone */
export async function sendFile(socket: Socket | null, { file, position, length }: FileStretch): Promise<number | Buffer | undefined> {
  if (descriptorOf(socket) === undefined) return undefined;
  const bound = await (libc ??= bindLibc());
  const to = descriptorOf(socket);
  if (bound === undefined || to === undefined || file.fd < 0) return undefined;
  const { vectors, preadv2, piece } = bound;
  const count = Math.min(length, MAX_CALL);
  const inMemory = (at: number) => preadv2(file.fd, vectors.first, 1, at, RWF_NOWAIT) === 1;
  let sent: number;
  if (inMemory(position + count - 1) && inMemory(position)) {
    sent = bound.sendfile(to, file.fd, [position], count);
    if (sent < 0 && bound.errno() === constants.errno.EAGAIN) {
      const read = preadv2(file.fd, vectors.whole, 1, position, RWF_NOWAIT);
      return read > 0 ? Buffer.from(piece.subarray(0, Math.min(read, length))) : undefined;
    }
    await turn(); // a client that takes all at once would keep everybody else waiting
  } else sent = await sendByThread(bound, to, file.fd, position, count);
  if (sent <= 0) return undefined;
  // The socket counts as idle for as long as it writes nothing itself.
  if (socket?.timeout !== undefined) socket.setTimeout(socket.timeout);
  return sent;
}

/** Either descriptor may be closed while the call waits for its thread, and its number be another's by then: it gets some of its own. */
async function sendByThread(libc: Libc, to: number, from: number, position: number, count: number): Promise<number> {
  const own: number[] = [];
  const duplicate = (fd: number): number => {
    const copy = libc.fcntl(fd, F_DUPFD_CLOEXEC, 'int', 0);
    if (copy >= 0) own.push(copy);
    return copy;
  };
  try {
    const [target, source] = [duplicate(to), duplicate(from)];
    if (target < 0 || source < 0) return 0;
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    libc.sendfile.async(target, source, [position], count, (error: Error | null, sent) => {
      if (error === null) resolve(sent);
      else reject(error);
    });
    return await promise;
  } finally {
    for (const fd of own) libc.close(fd);
  }
}

/** Of a connection that takes bytes as they are, and that has none to write before. */
function descriptorOf(socket: Socket | null): number | undefined {
  if (!(socket instanceof Socket) || socket instanceof TLSSocket || socket.destroyed || socket.writableLength > 0) return undefined;
  // Not documented, but there on every system with descriptors.
  const fd = (socket as Socket & { _handle?: { fd?: number } | null })._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}
