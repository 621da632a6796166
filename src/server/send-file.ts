import type { Socket } from 'node:net';
import { constants } from 'node:os';
import { descriptorOf, isPlainSocket, loadLibc, type Libc } from '../io/libc.ts';
import type { FileSlice, SocketSlice } from '../io/slice.ts';

/** Sends parts of files by sendfile(2), and what arrives at other sockets by splice(2). Neither
 *  copies anything, and neither waits here, for the disk or for the client. */
export interface FileSender {
  /** How many bytes from the beginning of a slice are in memory, as far as checked; 0: the first
   *  ones are not. */
  ready(slice: FileSlice): number;
  /** Sends some of the first `count` bytes of a slice, which are in memory.
   *  @returns how many; 0: the socket's buffer is full. Undefined: this socket cannot use sendfile, or is closed */
  send(socket: Socket | null, slice: FileSlice, count: number): number | undefined;
  /** Reads the first 16 KiB of a slice, at most `count` bytes, to be written in the usual way: a full
   *  socket reports when it has sent them. Undefined: they are not in memory */
  read(slice: FileSlice, count: number): Buffer | undefined;
  /** How many bytes wait in a socket's buffer to be sent. */
  unsent(socket: Socket | null): number;
  /** Passes on bytes that have arrived at another socket.
   *  @returns how many. 0: read and write the next bytes in the usual way, which waits for either socket */
  pass(socket: Socket | null, slice: SocketSlice): number;
}

/** The maximum number of bytes of one call, which blocks the event loop. */
const MAX_CALL = 2 ** 20;
/** Bytes that are written in the usual way when the socket buffer is full. */
const PIECE = 2 ** 14;
/** Reads only bytes in memory, and waits for no lock (preadv2(2)). */
const RWF_NOWAIT = 8;
/** ioctl(2) */
const SIOCOUTQNSD = 0x894b;
const PROT_READ = 1;
const MAP_SHARED = 1;

/** Undefined: the system calls are not available. */
async function loadFileSender(): Promise<FileSender | undefined> {
  const libc = await loadLibc();
  return libc === undefined ? undefined : createFileSender(libc);
}

/** Calls `loadFileSender` once, when the first blob is sent. */
export function lazyFileSender(): () => Promise<FileSender | undefined> {
  let loaded: Promise<FileSender | undefined> | undefined;
  return () => (loaded ??= loadFileSender());
}

function createFileSender({ sendfile, preadv2, mmap, mincore, munmap, ioctl, errno, addressOf, pageSize }: Libc): FileSender {
  const pages = Buffer.alloc(MAX_CALL / pageSize + 1);
  const piece = Buffer.allocUnsafeSlow(PIECE);
  const queued = new Int32Array(1);
  /** A struct iovec of the beginning of `piece`. */
  const vector = (length: number): Buffer => Buffer.from(BigUint64Array.of(addressOf(piece), BigInt(length)).buffer);
  const vectors = { whole: vector(PIECE), first: vector(1) };

  /** Whether all pages from `start` on are in memory and up to date. Unlike reading a byte, the
   *  check brings no page in. */
  function arePresent(fd: number, start: number, count: number): boolean {
    const length = count * pageSize;
    const address = mmap(0, length, PROT_READ, MAP_SHARED, fd, start);
    if (typeof address === 'bigint') return false; // MAP_FAILED
    const known = mincore(address, length, pages) === 0;
    munmap(address, length);
    return known && !pages.subarray(0, count).includes(0);
  }

  return {
    ready({ file, position, length }) {
      const count = Math.min(length, MAX_CALL);
      // Some file systems make readers wait for writers: preadv2 then fails as well.
      if (preadv2(file.fd, vectors.first, 1, position, RWF_NOWAIT) !== 1) return 0;
      const start = position - (position % pageSize);
      return arePresent(file.fd, start, Math.ceil((position + count - start) / pageSize)) ? count : 0;
    },
    send(socket, { file, position }, count) {
      const to = idleDescriptorOf(socket);
      if (to === undefined) return undefined;
      const sent = sendfile(to, file.fd, [position], count);
      if (sent < 0 && errno() === constants.errno.EAGAIN) return 0;
      if (sent <= 0) return undefined;
      countAsActive(socket);
      return sent;
    },
    read({ file, position }, count) {
      const read = preadv2(file.fd, vectors.whole, 1, position, RWF_NOWAIT);
      return read > 0 ? Buffer.from(piece.subarray(0, Math.min(read, count))) : undefined;
    },
    unsent(socket) {
      const fd = idleDescriptorOf(socket);
      return fd !== undefined && ioctl(fd, SIOCOUTQNSD, queued) === 0 ? (queued[0] ?? 0) : 0;
    },
    pass(socket, { moveTo }) {
      const to = idleDescriptorOf(socket);
      const moved = to === undefined ? 0 : moveTo(to);
      if (moved > 0) countAsActive(socket);
      return moved;
    },
  };
}

/** A socket does not notice what these calls write, and would count as idle. */
function countAsActive(socket: Socket | null): void {
  if (socket?.timeout !== undefined) socket.setTimeout(socket.timeout);
}

/** The descriptor of a socket with nothing left to write. */
function idleDescriptorOf(socket: Socket | null): number | undefined {
  return isPlainSocket(socket) && socket.writableLength === 0 ? descriptorOf(socket) : undefined;
}
