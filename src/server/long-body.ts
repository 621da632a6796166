import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { isHeld, parserOf, readInto, type ConnectionParser } from './node-internals.ts';

/** Bodies of at least this many bytes bypass Node's parser. */
const LONG = 1024 * 1024;
/** The size of pieces: of clients that may be slow, of others, and while many bodies are read at
 *  once. Handing a piece to the thread that stores it takes as long whatever its size. */
const [SMALL, LARGE, MEDIUM] = [2 ** 16, 2 ** 19, 2 ** 18];
/** With more bodies at once, pieces are of medium size. */
const MANY = 8;

/** A body that is being read. */
export interface BodyFeed {
  pause(this: void): void;
  resume(this: void): void;
  /** Hands on the bytes that have arrived, even if they are few. */
  flush(this: void): void;
  /** Leaves the rest of the body to the request's own stream. */
  close(this: void): void;
}

export interface LongBodyOptions {
  /** Called with pieces that have memory of their own. */
  take(this: void, bytes: Uint8Array): void;
  /** Called after the last piece. */
  end(this: void): void;
}

/** Reads a long body straight from its socket into the pieces that are handed on. Node's parser
 *  would copy it into pieces of at most 64 KiB, which are garbage at once. It still counts the bytes,
 *  so the connection can serve further requests. To be called before anything has read from the body,
 *  and after Node's parser has parsed what it had: later than in the event 'request' itself.
 *  @returns undefined: the body must be read as usual, because it is short, encrypted or chunked, or
 *  this version of Node does not allow it */
export function takeLongBody(request: IncomingMessage, options: LongBodyOptions): BodyFeed | undefined {
  const { socket, headers } = request;
  const length = Number(headers['content-length'] ?? 0);
  if (!(length >= LONG) || headers['transfer-encoding'] !== undefined || 'encrypted' in socket || socket.destroyed) return undefined;
  const connection = connections.get(socket) ?? openConnection(socket);
  if (connection === undefined || connection.parser.incoming() !== request) return undefined;
  let left = length;
  for (let begun = readBuffered(request); begun !== null; begun = readBuffered(request)) {
    left -= begun.length;
    options.take(new Uint8Array(begun));
  }
  return connection.begin(left, options);
}

/** What the parser has put into the request's stream; each call may return a part of it. */
function readBuffered(request: IncomingMessage): Buffer | null {
  return request.read() as Buffer | null;
}

interface Connection {
  parser: ConnectionParser;
  /** @param left how many bytes of the body have not arrived */
  begin(this: void, left: number, options: LongBodyOptions): BodyFeed;
}

const connections = new WeakMap<Socket, Connection>();
/** Connections read into this buffer between two long bodies; the bytes are copied before the next
 *  connection reads. */
const shared = Buffer.allocUnsafeSlow(64 * 1024);

/** How many bodies are being read. */
let reading = 0;
const pieceSize = (): number => (reading > MANY ? MEDIUM : LARGE);

/** Makes a connection read into buffers of this module from now on. */
function openConnection(socket: Socket): Connection | undefined {
  const parser = parserOf(socket);
  if (parser === undefined) return undefined;
  let body: LongBody | undefined;

  function parse(bytes: Uint8Array): void {
    if (bytes.length > 0) socket.emit('data', Buffer.from(bytes));
  }
  const canRead = readInto(socket, shared, {
    buffer: () => body?.room() ?? shared,
    callback(size, buffer) {
      const bytes = buffer.subarray(0, size);
      try {
        if (body === undefined) parse(bytes);
        else if (buffer === shared) parse(body.copy(bytes));
        else body.filled(size);
      } catch (error) {
        socket.destroy(error as Error); // whatever Node's parser throws must not end the process
      }
      return body?.isPaused() !== true;
    },
  });
  if (!canRead) return undefined;
  const connection: Connection = {
    parser,
    begin(left, options) {
      const own = createLongBody(left, {
        ...options,
        count: parser.count,
        end() {
          body = undefined;
          options.end();
        },
      });
      reading++;
      body = left > 0 ? own : undefined;
      if (left === 0) options.end();
      return {
        pause: () => own.pause(true),
        resume() {
          own.pause(false);
          if (body === own && !isHeld(socket)) socket.resume();
        },
        flush: own.flush,
        close() {
          reading--;
          if (body === own) body = undefined;
        },
      };
    },
  };
  connections.set(socket, connection);
  return connection;
}

interface LongBody {
  /** Where the next bytes go. */
  room(this: void): Uint8Array;
  /** The room has received `size` bytes. */
  filled(this: void, size: number): void;
  /** Copies bytes that were read elsewhere. @returns those that do not belong to the body */
  copy(this: void, bytes: Uint8Array): Uint8Array;
  flush(this: void): void;
  pause(this: void, paused: boolean): void;
  isPaused(this: void): boolean;
}

function createLongBody(left: number, { take, end, count }: LongBodyOptions & { count(this: void, bytes: Uint8Array): void }): LongBody {
  let piece = Buffer.allocUnsafeSlow(Math.min(SMALL, left));
  /** The bytes [handedOn, at) of the piece have not been handed on. */
  let [handedOn, at] = [0, 0];
  let paused = false;

  function flush(): void {
    const isWhole = handedOn === 0 && at === piece.length;
    const bytes = isWhole ? piece : new Uint8Array(piece.subarray(handedOn, at));
    handedOn = at;
    if (at === piece.length && left > 0) {
      piece = Buffer.allocUnsafeSlow(Math.min(isWhole ? pieceSize() : SMALL, left));
      [handedOn, at] = [0, 0];
    }
    if (bytes.length > 0) take(bytes);
  }
  function filled(added: number): void {
    left -= added;
    count(piece.subarray(at, at + added));
    at += added;
    if (at === piece.length) flush();
    if (left === 0) end();
  }
  return {
    room: () => piece.subarray(at),
    filled,
    copy(bytes) {
      let done = 0;
      while (done < bytes.length && left > 0) {
        const part = bytes.subarray(done, done + piece.length - at);
        piece.set(part, at);
        done += part.length;
        filled(part.length);
      }
      return bytes.subarray(done);
    },
    flush,
    pause: (value) => void (paused = value),
    isPaused: () => paused,
  };
}
