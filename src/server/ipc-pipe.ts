import type { Server, Socket } from 'node:net';

/** A listening TCP socket as Node's own servers hold it. */
export type ListeningSocket = object & { readonly fd: number };

/** A unix socket that carries open sockets along with text (SCM_RIGHTS, unix(7)). Node supports
 *  this for its child processes only, so this file uses the internal binding behind
 *  `child_process`. No other file does; without the binding, there is no handover. */
export interface IpcPipe {
  /** The next text that arrived, with the socket that came with it, if any; undefined at the
   *  end. */
  read(): Promise<{ text: string; socket: ListeningSocket | undefined } | undefined>;
  /** @throws Error: the text could not be sent at once */
  write(text: string, socket?: ListeningSocket): void;
  close(): void;
}

interface PipeHandle {
  pendingHandle: ListeningSocket | null;
  onread: (chunk: ArrayBuffer | undefined) => void;
  open(fd: number): number;
  connect(request: object, path: string): number;
  readStart(): number;
  writeUtf8String(request: object, text: string, handle?: object): number;
  close(): void;
  unref(): void;
}

interface Bindings {
  Pipe: new (type: number) => PipeHandle;
  PipeConnectWrap: new () => { oncomplete?: (status: number) => void };
  WriteWrap: new () => { oncomplete?: (status: number) => void };
  ipc: number;
}

/** @throws Error: this Node has no such binding */
function bindings(): Bindings {
  const { binding } = process as unknown as { binding: (name: string) => Record<string, unknown> };
  const { Pipe, PipeConnectWrap, constants } = binding('pipe_wrap');
  const { WriteWrap } = binding('stream_wrap');
  return { Pipe, PipeConnectWrap, WriteWrap, ipc: (constants as { IPC: number }).IPC } as Bindings;
}

/** The socket that `server` listens on. */
export function listeningSocket(server: Server): ListeningSocket | undefined {
  return (server as unknown as { _handle: ListeningSocket | null })._handle ?? undefined;
}

/** Connects to the unix socket `path`; a leading NUL makes it an abstract one.
 *  @throws NodeJS.ErrnoException-like Error: nothing listens there */
export async function connectPipe(path: string): Promise<IpcPipe> {
  const { Pipe, PipeConnectWrap, ipc } = bindings();
  const handle = new Pipe(ipc);
  const request = new PipeConnectWrap();
  const { promise, resolve } = Promise.withResolvers<number>();
  request.oncomplete = resolve;
  const status = handle.connect(request, path) || (await promise);
  if (status !== 0) {
    handle.close();
    throw new Error(`cannot connect to ${path.replace('\0', '@')}: error ${status}`);
  }
  return wrap(handle, () => handle.close());
}

/** A pipe over a connected unix socket that is no longer read. Only `write` works. */
export function adoptPipe(socket: Socket): IpcPipe {
  const { Pipe, ipc } = bindings();
  const handle = new Pipe(ipc);
  const own = (socket as unknown as { _handle: { fd: number; readStop(): void } })._handle;
  own.readStop(); // libuv lets only one handle at a time wait for a file descriptor
  if (handle.open(own.fd) !== 0) throw new Error('the connection cannot carry sockets');
  handle.unref();
  // The socket owns the file descriptor: closing the handle too would close whatever has the same
  // number by then.
  return wrap(handle, () => socket.destroy());
}

function wrap(handle: PipeHandle, close: () => void): IpcPipe {
  const arrived: { text: string; socket: ListeningSocket | undefined }[] = [];
  let wake: (() => void) | undefined;
  let ended = false;
  let reading = false;

  function startReading(): void {
    reading = true;
    handle.onread = (chunk) => {
      const socket = handle.pendingHandle ?? undefined;
      handle.pendingHandle = null;
      if (chunk === undefined) ended = true;
      else arrived.push({ text: Buffer.from(chunk).toString(), socket });
      wake?.();
    };
    handle.readStart();
  }

  return {
    async read() {
      if (!reading) startReading();
      while (arrived.length === 0 && !ended) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return arrived.shift();
    },
    write(text, socket) {
      const status = handle.writeUtf8String(new (bindings().WriteWrap)(), text, socket);
      if (status !== 0) throw new Error(`cannot write to the pipe: error ${status}`);
    },
    close() {
      ended = true;
      wake?.();
      close();
    },
  };
}
