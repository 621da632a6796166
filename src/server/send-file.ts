import { Socket } from 'node:net';
import { constants } from 'node:os';
import { TLSSocket } from 'node:tls';
import type { FileSlice } from '../io/file-slice.ts';

/** System calls that Node does not offer. */
interface Libc {
  sendfile(this: void, to: number, from: number, offset: [number], count: number): number;
  preadv2(this: void, fd: number, vectors: Buffer, count: number, offset: number, flags: number): number;
  mmap(this: void, address: number, length: number, protection: number, flags: number, fd: number, offset: number): number | bigint;
  mincore(this: void, address: number, length: number, pages: Buffer): number;
  munmap(this: void, address: number, length: number): number;
  errno(this: void): number;
  /** Bytes. */
  pageSize: number;
  /** A struct iovec of all of `piece`, and one of its first byte. */
  vectors: { whole: Buffer; first: Buffer };
  piece: Buffer;
}

/** Sends parts of files by sendfile(2), which copies nothing, and never waits for the disk or the
 *  client. */
export interface FileSender {
  /** How many bytes from the beginning of a slice are in memory, as far as checked; 0: the first
   *  ones are not. */
  ready(slice: FileSlice): number;
  /** Sends some of the first `count` bytes of a slice, which are in memory.
   *  @returns the number of bytes sent; or, if the socket buffer is full, a Buffer with the next 16 KiB: write it to the socket in the
   *           usual way and wait for it to drain. Undefined: this socket cannot use sendfile, or is closed */
  send(socket: Socket | null, slice: FileSlice, count: number): number | Buffer | undefined;
}

/** The maximum number of bytes of one call, which blocks the event loop. */
const MAX_CALL = 2 ** 20;
/** Bytes that are written in the usual way when the socket buffer is full. */
const PIECE = 2 ** 14;
/** Reads only bytes in memory, and waits for no lock (preadv2(2)). */
const RWF_NOWAIT = 8;
const PROT_READ = 1;
const MAP_SHARED = 1;

/** Loads the system calls for sending files. Undefined if they are not available: koffi, an
 *  optional dependency, is not installed or has no build for this processor, or the system is not
 *  Linux. */
async function loadFileSender(): Promise<FileSender | undefined> {
  const libc = await bindLibc();
  return libc === undefined ? undefined : createFileSender(libc);
}

/** Calls `loadFileSender` once, when the first blob is sent. */
export function lazyFileSender(): () => Promise<FileSender | undefined> {
  let loaded: Promise<FileSender | undefined> | undefined;
  return () => (loaded ??= loadFileSender());
}

/** Whether a socket can use sendfile: bytes go over it unchanged. */
export function takesFiles(socket: Socket | null): boolean {
  return socket instanceof Socket && !(socket instanceof TLSSocket);
}

async function bindLibc(): Promise<Libc | undefined> {
  if (process.platform !== 'linux') return undefined; // sendfile has other parameters elsewhere
  try {
    const { address, errno, load } = await import('koffi');
    const library = load(null);
    const piece = Buffer.allocUnsafeSlow(PIECE);
    const vector = (length: number): Buffer => Buffer.from(BigUint64Array.of(address(piece), BigInt(length)).buffer);
    return {
      sendfile: library.func('int64_t sendfile(int to, int from, _Inout_ int64_t *offset, size_t count)') as Libc['sendfile'],
      preadv2: library.func('int64_t preadv2(int fd, const void *vectors, int count, int64_t offset, int flags)') as Libc['preadv2'],
      mmap: library.func(
        'uintptr_t mmap(uintptr_t address, size_t length, int protection, int flags, int fd, int64_t offset)',
      ) as Libc['mmap'],
      mincore: library.func('int mincore(uintptr_t address, size_t length, uint8_t *pages)') as Libc['mincore'],
      munmap: library.func('int munmap(uintptr_t address, size_t length)') as Libc['munmap'],
      errno,
      pageSize: (library.func('int getpagesize()') as () => number)(),
      vectors: { whole: vector(PIECE), first: vector(1) },
      piece,
    };
  } catch {
    return undefined; // not installed, or no build for this processor
  }
}

function createFileSender({ sendfile, preadv2, mmap, mincore, munmap, errno, pageSize, vectors, piece }: Libc): FileSender {
  const pages = Buffer.alloc(MAX_CALL / pageSize + 1);

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
      const to = descriptorOf(socket);
      if (to === undefined) return undefined;
      const sent = sendfile(to, file.fd, [position], count);
      if (sent < 0 && errno() === constants.errno.EAGAIN) {
        const read = preadv2(file.fd, vectors.whole, 1, position, RWF_NOWAIT);
        return read > 0 ? Buffer.from(piece.subarray(0, Math.min(read, count))) : undefined;
      }
      if (sent <= 0) return undefined;
      // The socket does not notice what sendfile writes, and would count as idle.
      if (socket?.timeout !== undefined) socket.setTimeout(socket.timeout);
      return sent;
    },
  };
}

/** The file descriptor of a socket with nothing left to write. */
function descriptorOf(socket: Socket | null): number | undefined {
  if (socket === null || !takesFiles(socket) || socket.destroyed || socket.writableLength > 0) return undefined;
  // Undocumented, but present on every system with file descriptors.
  const fd = (socket as Socket & { _handle?: { fd?: number } | null })._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}
