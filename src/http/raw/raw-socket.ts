import { Agent, type AgentOptions, type IncomingMessage } from 'node:http';
import type { OnReadOpts, Socket, TcpNetConnectOpts } from 'node:net';
import { createRawBody, type RawBody } from './raw-body.ts';

/** Bodies of at least this many bytes are read without Node's parser. */
const LONG = 1024 * 1024;

export interface RawSockets {
  /** Creates the connections of the requests whose bodies may be taken over. */
  agent: Agent;
  /** Reads the rest of a response straight from its socket. Called while 'response' is emitted, it
   *  keeps the connection for the next request. Called later, once the head has arrived, it closes
   *  the connection with the body.
   *  @param length of the body, in bytes
   *  @returns undefined when the response must be read as usual: it is short, or came over a
   *  connection of another agent */
  takeOver(this: void, response: IncomingMessage, length: number): RawBody | undefined;
}

/** Opens a socket, which reads with `onread` if that is given. */
export type OpenSocket = (options: TcpNetConnectOpts) => Socket;

/** Connections whose long bodies bypass Node's parser, which copies each byte once more, into
 *  memory that is garbage at once: without it, a byte of plain HTTP costs a third of the CPU time,
 *  and one of HTTPS two thirds. Relies on `onread` of net.connect and tls.connect, on the bytes
 *  that a paused response has buffered, and on responses with the status 304 having no body;
 *  `rawSocketsWork` checks that this works in the current version of Node. */
export function openRawSockets(options: AgentOptions, open: OpenSocket): RawSockets {
  const connections = new WeakMap<Socket, Connection>();
  const agent = new Agent(options);
  agent.createConnection = (options) => {
    const connection = createConnection((onread) => open({ ...(options as TcpNetConnectOpts), onread }));
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
  takeOver(response: IncomingMessage, length: number): RawBody | undefined;
}

/** All connections read into this buffer; the bytes are copied before the next connection reads. */
const shared = Buffer.allocUnsafeSlow(64 * 1024);
const HEAD_END = Buffer.from('\r\n\r\n');
/** Node's parser looks at the status after 'response' has been emitted, to know whether a body
 *  follows. */
const NO_BODY = { statusCode: 304 };

function createConnection(open: (onread: OnReadOpts) => Socket): Connection {
  let body: RawBody | undefined;
  /** The socket does read by `onread`. */
  let reads = false;
  /** The parser is receiving the end of a head, and no byte of the body. */
  let atHeadEnd = false;

  /** Passes bytes to Node's parser: the end of a head separately, so that a body can be taken over
   *  from its first byte. */
  function parse(bytes: Buffer): boolean {
    const end = bytes.indexOf(HEAD_END);
    const head = end === -1 ? bytes : bytes.subarray(0, end + HEAD_END.length);
    atHeadEnd = end !== -1;
    socket.emit('data', head);
    atHeadEnd = false;
    const rest = bytes.subarray(head.length);
    if (rest.length === 0) return true;
    if (body !== undefined) return body.take(rest);
    socket.emit('data', rest);
    return true;
  }

  const socket = open({
    buffer: () => body?.room() ?? shared,
    callback(size, buffer): boolean {
      reads = true;
      if (body === undefined) return parse(Buffer.from(shared.subarray(0, size)));
      return buffer === shared ? body.take(shared.subarray(0, size)) : body.filled(size);
    },
  });

  return {
    socket,
    takeOver(response, length) {
      if (!reads) return undefined;
      const clean = atHeadEnd;
      const onArrived = (): void => {
        body = undefined;
        if (clean) response.resume(); // Node's parser sees the end of the response, and the agent gets the socket back
        else socket.destroy();
      };
      const raw = createRawBody({ socket, length, onArrived });
      body = raw;
      if (clean) {
        Object.assign(response, NO_BODY); // for the parser, the response ends here
      } else {
        response.on('error', () => undefined); // for Node's parser this body never ends
        const begun = response.read() as Buffer | null;
        if (begun !== null) raw.take(begun);
      }
      return raw;
    },
  };
}
