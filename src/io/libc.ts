import { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';

/** System calls that Node does not offer. Each returns a negative number when it fails. */
export interface Libc {
  sendfile(this: void, to: number, from: number, offset: [number], count: number): number;
  preadv2(this: void, fd: number, vectors: Buffer, count: number, offset: number, flags: number): number;
  mmap(this: void, address: number, length: number, protection: number, flags: number, fd: number, offset: number): number | bigint;
  mincore(this: void, address: number, length: number, pages: Buffer): number;
  munmap(this: void, address: number, length: number): number;
  pipe2(this: void, descriptors: Int32Array, flags: number): number;
  fcntl(this: void, fd: number, command: number, value: number): number;
  splice(this: void, from: number, fromOffset: null, to: number, toOffset: null, count: number, flags: number): number;
  ioctl(this: void, fd: number, request: number, value: Int32Array): number;
  /** Of the last call. */
  errno(this: void): number;
  /** The address of a buffer, for a struct. */
  addressOf(this: void, buffer: Buffer): bigint;
  /** Bytes. */
  pageSize: number;
}

let loaded: Promise<Libc | undefined> | undefined;

/** Binds the C library, once per process. Undefined: koffi, an optional dependency, is not
 *  installed or has no build for this processor, or the system is not Linux, whose calls these
 *  are. */
export function loadLibc(): Promise<Libc | undefined> {
  return (loaded ??= bind());
}

async function bind(): Promise<Libc | undefined> {
  if (process.platform !== 'linux') return undefined;
  try {
    const { address, errno, load } = await import('koffi');
    const library = load(null);
    return {
      sendfile: library.func('int64_t sendfile(int to, int from, _Inout_ int64_t *offset, size_t count)') as Libc['sendfile'],
      preadv2: library.func('int64_t preadv2(int fd, const void *vectors, int count, int64_t offset, int flags)') as Libc['preadv2'],
      mmap: library.func(
        'uintptr_t mmap(uintptr_t address, size_t length, int protection, int flags, int fd, int64_t offset)',
      ) as Libc['mmap'],
      mincore: library.func('int mincore(uintptr_t address, size_t length, uint8_t *pages)') as Libc['mincore'],
      munmap: library.func('int munmap(uintptr_t address, size_t length)') as Libc['munmap'],
      pipe2: library.func('int pipe2(int *descriptors, int flags)') as Libc['pipe2'],
      fcntl: library.func('int fcntl(int fd, int command, int value)') as Libc['fcntl'],
      splice: library.func(
        'int64_t splice(int from, int64_t *fromOffset, int to, int64_t *toOffset, size_t count, unsigned int flags)',
      ) as Libc['splice'],
      ioctl: library.func('int ioctl(int fd, unsigned long request, int *value)') as Libc['ioctl'],
      errno,
      addressOf: address,
      pageSize: (library.func('int getpagesize()') as () => number)(),
    };
  } catch {
    return undefined;
  }
}

/** Whether the bytes that a socket transfers are those of its descriptor, without TLS. */
export function isPlainSocket(socket: Socket | null): socket is Socket {
  return socket instanceof Socket && !(socket instanceof TLSSocket);
}

/** Undocumented, but present on every system with file descriptors. */
type WithHandle = Socket & { _handle?: { fd?: number; readStop(): void } | null };

/** The descriptor of a plain socket. Undefined: it is closed. */
export function descriptorOf(socket: Socket): number | undefined {
  const fd = (socket as WithHandle)._handle?.fd;
  return socket.destroyed || fd === undefined || fd < 0 ? undefined : fd;
}

/** Stops Node from reading from a plain socket; `pause` does not while a `resume` is about to take
 *  effect. */
export function stopReading(socket: Socket): void {
  (socket as WithHandle)._handle?.readStop();
}
