import { Agent, type AgentOptions, type IncomingMessage } from 'node:http';
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import { createRawBody, type RawBody } from './raw-body.ts';

/** Bodies of at least this many bytes are worth a connection of their own. */
const LONG = 1024 * 1024;

export interface RawSockets {
  /** Makes the connections of the requests whose bodies may be taken over. */
  agent: Agent;
  /** Reads the rest of a response straight from its socket. Call it as soon as the head has
   *  arrived. The connection ends with the body.
   *  @param length of the body, in bytes
   *  @returns undefined when the response must be read as usual: it is short, or came over a
   *  connection of another agent */
  takeOver(this: void, response: IncomingMessage, length: number): RawBody | undefined;
}

/** Connections of plain HTTP whose long bodies bypass Node's parser, which copies each byte once
 *  more, into memory that is garbage at once: without it, a byte costs a third of the CPU time.
 *  Relies on `onread` of net.connect and on the bytes that a paused response has buffered;
 *  `rawSocketsWork` checks that this works in the current version of Node. */
export function openRawSockets(options: AgentOptions): RawSockets {
  const connections = new WeakMap<Socket, Connection>();
  const agent = new Agent(options);
  agent.createConnection = (options) => {
    const connection = createConnection(options as NetConnectOpts);
    connections.set(connection.socket, connection);
    return connection.socket;
  };
  return {
    agent,
    takeOver: (response, length) => (length < LONG ? undefined : connections.get(response.socket)?.takeOver(response, length)),
  };
}

/** A connection whose bytes go to Node's parser until a long body is taken over. */
interface Connection {
  socket: Socket;
  takeOver(response: IncomingMessage, length: number): RawBody;
}

/** All connections read into this buffer; the bytes are copied before the next connection reads. */
const shared = Buffer.allocUnsafeSlow(64 * 1024);

function createConnection(options: NetConnectOpts): Connection {
  let body: RawBody | undefined;
  const onread = {
    buffer: () => body?.buffer() ?? shared,
    callback(size: number, buffer: Uint8Array): boolean {
      const bytes = buffer === shared ? Buffer.from(shared.subarray(0, size)) : buffer.subarray(0, size);
      if (body !== undefined) return body.take(bytes);
      socket.emit('data', bytes);
      return true;
    },
  };
  const socket = connect({ ...options, onread } as NetConnectOpts);
  return {
    socket,
    takeOver(response, length) {
      response.on('error', () => undefined); // for Node's parser this body never ends
      const begun = response.read() as Buffer | null;
      body = createRawBody(socket, length);
      if (begun !== null) body.take(begun);
      return body;
    },
  };
}
