import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

// What Node does not document, and long-body-check.ts therefore tries before it is used.

interface OnRead {
  /** Where the next bytes go. */
  buffer(this: void): Uint8Array;
  /** `size` bytes were read into `buffer`. @returns whether more may be read */
  callback(this: void, size: number, buffer: Uint8Array): boolean;
}

/** Lets a connection that a server has accepted read as net.connect does with `onread`.
 *  @param first a buffer for the first read
 *  @returns false: this version of Node cannot do that */
export function readInto(socket: Socket, first: Uint8Array, { buffer, callback }: OnRead): boolean {
  const { _handle: handle } = socket as { _handle?: { useUserBuffer?: (bytes: Uint8Array) => void } };
  const symbols = Object.getOwnPropertySymbols(socket);
  const values: Record<string, unknown> = { kBuffer: first, kBufferGen: buffer, kBufferCb: callback };
  const found = symbols.filter(({ description = '' }) => description in values);
  if (handle?.useUserBuffer === undefined || found.length !== Object.keys(values).length) return false;
  // Until there is a second listener, Node hands the bytes to its parser without events.
  const ignore = (): void => undefined;
  socket.on('data', ignore).off('data', ignore);
  for (const symbol of found) Object.assign(socket, { [symbol]: values[symbol.description ?? ''] });
  handle.useUserBuffer(first);
  return true;
}

/** Whether Node has stopped reading from a connection whose client reads no responses. It reads on
 *  by itself. */
export function isHeld(socket: Socket): boolean {
  return (socket as { _paused?: boolean })._paused === true;
}

/** The HTTP parser of a connection. */
export interface ConnectionParser {
  /** The request that is being received. */
  incoming(this: void): IncomingMessage | null;
  /** Passes on bytes of a body. The parser counts them, and copies none. */
  count(this: void, bytes: Uint8Array): void;
}

type Parser = { incoming: IncomingMessage | null } & Record<string, unknown>;

/** @returns undefined: the connection has no parser that this module knows */
export function parserOf(socket: Socket): ConnectionParser | undefined {
  const { parser } = socket as { parser?: Parser | null };
  if (parser === undefined || parser === null) return undefined;
  const onBody = Object.keys(parser).find((key) => (parser[key] as Partial<NamedFunction> | null)?.name === 'parserOnBody');
  if (onBody === undefined) return undefined;
  return {
    incoming: () => parser.incoming,
    count(bytes) {
      // Node copies bodies for this function only. Parsers are reused for other connections, so it
      // is missing during the call alone.
      const copied = parser[onBody];
      parser[onBody] = undefined;
      try {
        socket.emit('data', bytes);
      } finally {
        parser[onBody] = copied;
      }
    },
  };
}

interface NamedFunction {
  name: string;
}
